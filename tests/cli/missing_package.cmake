# Configuring without PACKAGE, and with OPTION, stops, and says which package of Debian and Ubuntu brings it.
file(REMOVE_RECURSE "${WORK}")
execute_process(
    COMMAND "${CMAKE_COMMAND}" -S "${SOURCE}" -B "${WORK}" -G "${GENERATOR}" "-DCMAKE_CXX_COMPILER=${COMPILER}"
            -DCMAKE_DISABLE_FIND_PACKAGE_${PACKAGE}=ON ${OPTION}
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(status EQUAL 0)
    message(FATAL_ERROR "cmake went on without ${PACKAGE}")
endif()
if(NOT output MATCHES "apt install[^\n]* ${APT_NAME}[ \n]")
    message(FATAL_ERROR "cmake does not name ${APT_NAME}:\n${output}")
endif()
