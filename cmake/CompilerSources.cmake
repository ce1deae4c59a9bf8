# The target quern_compiler_stamp: include/runtime/jit/CompilerStamp.h, made anew when a source of the compiler changes. Whatever
# can change an image's bytes is in the list: the front end, the generator, the library around it, and how ptxas is called.
file(GLOB_RECURSE sources RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS
     compiler/*.cpp compiler/*.h compiler/*.td codegen/*.cpp codegen/*.h codegen/*.td runtime/jit/*.cpp runtime/jit/*.h)
list(APPEND sources runtime/packing/Layout.h runtime/driver/Ptxas.cpp)
set(stampHeader ${CMAKE_BINARY_DIR}/include/runtime/jit/CompilerStamp.h)
set(llvm none)
if(QUERN_COMPILER)
  set(llvm ${LLVM_PACKAGE_VERSION})
endif()
list(TRANSFORM sources PREPEND ${CMAKE_SOURCE_DIR}/ OUTPUT_VARIABLE sourceFiles)
string(REPLACE ";" "|" sourceList "${sources}")
add_custom_command(OUTPUT ${stampHeader}
  COMMAND ${CMAKE_COMMAND} -DOUT=${stampHeader} -DROOT=${CMAKE_SOURCE_DIR} -DLLVM=${llvm} "-DFILES=${sourceList}"
          -P ${CMAKE_SOURCE_DIR}/cmake/CompilerStamp.cmake
  DEPENDS ${sourceFiles} cmake/CompilerStamp.cmake COMMENT "Stamp of the compiler's sources" VERBATIM)
add_custom_target(quern_compiler_stamp DEPENDS ${stampHeader})
