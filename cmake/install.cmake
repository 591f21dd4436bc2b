# `cmake --install`: the library with its headers and CMake package, the command line, and the configs with the corpus
# that they name by a relative path.
include(CMakePackageConfigHelpers)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/ballast")
set(share_dir "${CMAKE_INSTALL_DATADIR}/ballast")

install(TARGETS ballast EXPORT ballastTargets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY include/ballast DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.h")
install(EXPORT ballastTargets NAMESPACE ballast:: DESTINATION "${package_dir}")

configure_package_config_file(cmake/ballastConfig.cmake.in "${PROJECT_BINARY_DIR}/ballastConfig.cmake"
                              INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/ballastConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/ballastConfig.cmake" "${PROJECT_BINARY_DIR}/ballastConfigVersion.cmake"
              cmake/FindOpenBLAS.cmake DESTINATION "${package_dir}")

install(DIRECTORY configs DESTINATION "${share_dir}")
install(DIRECTORY data DESTINATION "${share_dir}")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")
if(TARGET ballast_main)
    install(TARGETS ballast_main RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
