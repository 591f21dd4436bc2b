# Finds dygraphs, the charts of report pages: its script and its style sheet, which become a part of every page.
find_file(dygraphs_SCRIPT dygraph.min.js HINTS ${CMAKE_PREFIX_PATH} PATHS ${CMAKE_SYSTEM_PREFIX_PATH}
          PATH_SUFFIXES share/javascript/dygraphs share/nodejs/dygraphs/dist)
find_file(dygraphs_STYLE dygraph.min.css HINTS ${CMAKE_PREFIX_PATH} PATHS ${CMAKE_SYSTEM_PREFIX_PATH}
          PATH_SUFFIXES share/javascript/dygraphs share/nodejs/dygraphs/dist)
mark_as_advanced(dygraphs_SCRIPT dygraphs_STYLE)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(dygraphs REQUIRED_VARS dygraphs_SCRIPT dygraphs_STYLE)
