# QSHARD_UNITY: files that do not get into each other's way compile as one, and the tests of a room are one program. A build
# from nothing then takes the compiler less than half the time; a build after one change takes it more.
option(QSHARD_UNITY "Compile groups of files as one: for a build from nothing" OFF)
if(QSHARD_UNITY)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  # A group includes its files: g++ then takes their classes with members of unnamed types for classes of a header, and warns.
  # And a local name may be that of another file's constant: only names that shadow local ones are errors then.
  target_compile_options(qshard_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-shadow>
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wshadow=local -Wno-subobject-linkage>)
endif()

# Call it after the sources have their properties: a file with compile options of its own stays alone.
function(qshard_unity target)
  if(NOT QSHARD_UNITY)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "[.]cpp$")
  set(script ${PROJECT_SOURCE_DIR}/cmake/unity_groups.py)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${script} ${sources})
  execute_process(COMMAND ${Python3_EXECUTABLE} ${script} 10 ${sources} WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
    OUTPUT_VARIABLE lines COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" lines "${lines}")
  foreach(line ${lines})
    string(REGEX MATCH "^([0-9]+) (.*)$" line "${line}")
    set_source_files_properties(${CMAKE_MATCH_2} PROPERTIES UNITY_GROUP group_${CMAKE_MATCH_1})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()

# Calls make(NAME FILE...) once a file, with the file's stem as NAME; with QSHARD_UNITY once for all files, with the name given.
function(qshard_programs make name)
  if(QSHARD_UNITY)
    cmake_language(CALL ${make} ${name} ${ARGN})
    return()
  endif()
  foreach(source ${ARGN})
    get_filename_component(stem ${source} NAME_WE)
    cmake_language(CALL ${make} ${stem} ${source})
  endforeach()
endfunction()
