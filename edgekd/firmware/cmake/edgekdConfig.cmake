# find_package(edgekd) -> edgekd_add_model(): a compressed model as a library target.
#
#   cmake -Dedgekd_DIR=$(edgekd firmware cmake-dir) ...
#
#   edgekd_add_model(
#     NAME <target>              # the library; also the prefix of its files and symbols
#     RECIPE <recipe.toml>
#     TARGET <name|file.toml>    # edgekd targets
#     [OUTPUT c|tflm]            # C11 with no runtime (default), or an array for the micro runtime
#     [BUDGET <limit>...]        # size_kib=64 memory_kib=32; a broken budget fails the build
#     [ACCEPT <kind>...]         # simulated, estimated: weaker numbers that may satisfy a budget
#     [SET <key=value>...]       # overrides of the recipe
#     [DEVICE <url>]             # a board to measure on
#     [SEED <number>] [QUICK])
#
# The target is a static library whose include folder has <target>.h (OUTPUT c) or <target>_model.h
# and <target>_resolver.h (OUTPUT tflm). It is rebuilt when the recipe or a file it names changes.
cmake_minimum_required(VERSION 3.20)

find_program(EDGEKD_EXECUTABLE edgekd
  HINTS "${CMAKE_CURRENT_LIST_DIR}/../../../../../../bin"  # of the environment that contains this file
  NO_CMAKE_FIND_ROOT_PATH
  DOC "edgekd's command line")
if(NOT EDGEKD_EXECUTABLE)
  set(edgekd_FOUND FALSE)
  set(edgekd_NOT_FOUND_MESSAGE
    "The program 'edgekd' is not on the PATH: pip install edgekd, or set EDGEKD_EXECUTABLE.")
  return()
endif()

function(edgekd_add_model)
  cmake_parse_arguments(PARSE_ARGV 0 arg "QUICK" "NAME;RECIPE;TARGET;OUTPUT;DEVICE;SEED"
    "BUDGET;ACCEPT;SET")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "edgekd_add_model: unknown argument '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  foreach(key IN ITEMS NAME RECIPE TARGET)
    if(NOT arg_${key})
      message(FATAL_ERROR "edgekd_add_model: ${key} is missing")
    endif()
  endforeach()
  if(NOT arg_OUTPUT)
    set(arg_OUTPUT c)
  endif()
  if(arg_OUTPUT STREQUAL "c")
    set(header_name "${arg_NAME}.h")
    set(source_name "${arg_NAME}.c")
    set(more "")
  elseif(arg_OUTPUT STREQUAL "tflm")
    set(header_name "${arg_NAME}_model.h")
    set(source_name "${arg_NAME}_model.c")
    set(more "${arg_NAME}_resolver.h")
  else()
    message(FATAL_ERROR "edgekd_add_model: OUTPUT is '${arg_OUTPUT}', allowed: c, tflm")
  endif()

  get_filename_component(recipe "${arg_RECIPE}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
  if(NOT EXISTS "${recipe}")
    message(FATAL_ERROR "edgekd_add_model: there is no recipe '${recipe}'")
  endif()
  set(target "${arg_TARGET}")
  if(target MATCHES "\\.toml$")
    get_filename_component(target "${target}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
  endif()

  set(folder "${CMAKE_CURRENT_BINARY_DIR}/edgekd/${arg_NAME}")
  set(header "${folder}/${header_name}")
  set(sources "${header}" "${folder}/${source_name}")
  foreach(name IN LISTS more)
    list(APPEND sources "${folder}/${name}")
  endforeach()

  set(options --target "${target}" --name "${arg_NAME}" --out "${folder}" --output "${arg_OUTPUT}"
    --run "${CMAKE_CURRENT_BINARY_DIR}/edgekd/${arg_NAME}-run" --depfile "${folder}.d")
  foreach(limit IN LISTS arg_BUDGET)
    list(APPEND options --budget "${limit}")
  endforeach()
  foreach(kind IN LISTS arg_ACCEPT)
    list(APPEND options --accept "${kind}")
  endforeach()
  foreach(setting IN LISTS arg_SET)
    list(APPEND options --set "${setting}")
  endforeach()
  foreach(key IN ITEMS DEVICE SEED)
    if(DEFINED arg_${key})
      string(TOLOWER "${key}" option)
      list(APPEND options "--${option}" "${arg_${key}}")
    endif()
  endforeach()
  if(arg_QUICK)
    list(APPEND options --quick)
  endif()

  add_custom_command(
    OUTPUT ${sources}
    COMMAND "${EDGEKD_EXECUTABLE}" firmware build "${recipe}" ${options}
    DEPENDS "${recipe}"
    DEPFILE "${folder}.d"
    COMMENT "Compressing ${arg_NAME} for ${arg_TARGET}"
    VERBATIM)
  add_library("${arg_NAME}" STATIC ${sources})
  target_include_directories("${arg_NAME}" PUBLIC "${folder}")
  set_target_properties("${arg_NAME}" PROPERTIES
    C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF LINKER_LANGUAGE C)
endfunction()

set(edgekd_FOUND TRUE)
