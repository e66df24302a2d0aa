# For CMake builds with the NDK but without Gradle, which makes such a file from the prefab package itself: unpack the AAR, then
#   cmake -DCMAKE_TOOLCHAIN_FILE=…/android.toolchain.cmake -DANDROID_ABI=arm64-v8a -Dweft_DIR=UNPACKED/prefab/cmake …
#   find_package(weft REQUIRED CONFIG)
#   target_link_libraries(app weft::weft)
# The app carries the library of jni/<ABI>, as Gradle has it do.
if(NOT ANDROID_ABI)
  message(FATAL_ERROR "weft: wanted ANDROID_ABI, which the NDK's toolchain file sets; it is not set")
endif()
get_filename_component(WEFT_MODULE "${CMAKE_CURRENT_LIST_DIR}/../modules/weft" ABSOLUTE)
set(WEFT_LIBRARY "${WEFT_MODULE}/libs/android.${ANDROID_ABI}/libweft_apps.so")
if(NOT EXISTS "${WEFT_LIBRARY}")
  message(FATAL_ERROR "weft: there is no library for ${ANDROID_ABI}: ${WEFT_LIBRARY}")
endif()
if(NOT TARGET weft::weft)
  add_library(weft::weft SHARED IMPORTED)
  set_target_properties(weft::weft PROPERTIES
    IMPORTED_LOCATION "${WEFT_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${WEFT_MODULE}/include")
endif()
