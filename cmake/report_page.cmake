# Puts the page of `ballast report` together and makes a C++ file of it:
#   cmake -DFOLDER=src/lab/report -DDYGRAPHS_SCRIPT=FILE -DDYGRAPHS_STYLE=FILE -DOUTPUT=FILE.cpp -P report_page.cmake
# A line of page.html `@FILE@` stands for what is in that file; the line `@data@` is where a report has its data.
file(READ "${FOLDER}/page.html" page)

file(READ "${DYGRAPHS_SCRIPT}" dygraphs_script)
file(READ "${DYGRAPHS_STYLE}" dygraphs_style)
# The addresses of source maps, which a browser would try to fetch.
string(REGEX REPLACE "//# sourceMappingURL=[^\n]*" "" dygraphs_script "${dygraphs_script}")
string(REGEX REPLACE "/\\*# sourceMappingURL=[^\n]*" "" dygraphs_style "${dygraphs_style}")
string(REPLACE "@dygraphs.js@" "${dygraphs_script}" page "${page}")
string(REPLACE "@dygraphs.css@" "${dygraphs_style}" page "${page}")

file(GLOB parts "${FOLDER}/*.js" "${FOLDER}/*.css")
foreach(part IN LISTS parts)
    get_filename_component(name "${part}" NAME)
    file(READ "${part}" text)
    string(FIND "${page}" "@${name}@" place)
    if(place EQUAL -1)
        message(FATAL_ERROR "${FOLDER}/page.html has no line for ${name}")
    endif()
    string(REPLACE "@${name}@" "${text}" page "${page}")
endforeach()

string(FIND "${page}" "@data@" place)
if(place EQUAL -1)
    message(FATAL_ERROR "${FOLDER}/page.html has no line for the data")
endif()
string(SUBSTRING "${page}" 0 ${place} head)
string(REGEX REPLACE "^.*@data@" "" tail "${page}")

# An array, as the standard lets a compiler refuse a literal of more than 65536 characters.
function(to_array variable text)
    string(HEX "${text}" hex)
    string(REGEX REPLACE "(..)" "0x\\1," hex "${hex}")
    set(${variable} "${hex}" PARENT_SCOPE)
endfunction()
to_array(head "${head}")
to_array(tail "${tail}")
file(WRITE "${OUTPUT}" "#include \"lab/report_page.h\"\n
namespace ballast {
namespace {
constexpr unsigned char kHead[] = {${head}};
constexpr unsigned char kTail[] = {${tail}};
} // namespace
std::string_view report_page_head() { return {reinterpret_cast<const char*>(kHead), sizeof(kHead)}; }
std::string_view report_page_tail() { return {reinterpret_cast<const char*>(kTail), sizeof(kTail)}; }
} // namespace ballast\n")
