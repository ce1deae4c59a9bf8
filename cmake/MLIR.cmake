# LLVM, MLIR and lld 22 from Debian's packages: shared for daily builds, static (QUERN_STATIC) for what travels.
find_package(MLIR REQUIRED CONFIG)
find_package(LLD REQUIRED CONFIG HINTS ${LLVM_DIR}/../lld)
list(APPEND CMAKE_MODULE_PATH "${MLIR_CMAKE_DIR}" "${LLVM_CMAKE_DIR}")
include(TableGen)
include(AddLLVM)
include(AddMLIR)
set(QUERN_LLVM_COMPONENTS AsmParser Core Support Passes Analysis Target TargetParser MC OrcJIT
    X86CodeGen X86AsmParser X86Desc X86Info NVPTXCodeGen NVPTXDesc NVPTXInfo)
if(QUERN_STATIC)
  # Debian's static MLIR and lld targets carry INTERFACE LLVM (= libLLVM.so), some also MLIR: strip both, link the components instead.
  foreach(t IN LISTS MLIR_EXPORTED_TARGETS ITEMS lldELF lldCommon)
    if(TARGET ${t})
      get_target_property(l ${t} INTERFACE_LINK_LIBRARIES)
      if(l)
        list(REMOVE_ITEM l LLVM MLIR "$<LINK_ONLY:LLVM>" "$<LINK_ONLY:MLIR>")
        set_property(TARGET ${t} PROPERTY INTERFACE_LINK_LIBRARIES "${l}")
      endif()
    endif()
  endforeach()
  # Polly is a package of its own, and nothing here asks for it: LLVM's list of extensions is linked without it.
  foreach(t IN LISTS LLVM_AVAILABLE_LIBS)
    if(TARGET ${t})
      get_target_property(l ${t} INTERFACE_LINK_LIBRARIES)
      if(l MATCHES "Polly")
        list(REMOVE_ITEM l Polly PollyISL)
        set_property(TARGET ${t} PROPERTY INTERFACE_LINK_LIBRARIES "${l}")
      endif()
    endif()
  endforeach()
  llvm_map_components_to_libnames(QUERN_LLVM_LIBS ${QUERN_LLVM_COMPONENTS} LTO DTLTO Option Object DebugInfoDWARF)
  # lld initialises every target that LLVM was built with; those that Quern has no use for stay out (they are 60 MB).
  file(STRINGS ${LLVM_INCLUDE_DIR}/llvm/Config/Targets.def targets REGEX "^LLVM_TARGET\\(")
  set(stubs "// Generated: targets of LLVM that are not linked, for lld's InitializeAllTargets and its like.\nextern \"C\" {\n")
  foreach(line IN LISTS targets)
    string(REGEX REPLACE "^LLVM_TARGET\\(([A-Za-z0-9]+)\\).*" "\\1" target ${line})
    if(NOT target MATCHES "^(X86|NVPTX)$")
      foreach(part TargetInfo Target TargetMC AsmPrinter AsmParser)
        string(APPEND stubs "void LLVMInitialize${target}${part}() {}\n")
      endforeach()
    endif()
  endforeach()
  # Polly's entry, by its mangled name: only link-time optimisation would call it.
  string(APPEND stubs "void _Z18getPollyPluginInfov() { __builtin_trap(); }\n")
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/OtherTargets.cpp CONTENT "${stubs}}\n" @ONLY)
  set(QUERN_LLD_STUBS ${CMAKE_BINARY_DIR}/OtherTargets.cpp)
  set(QUERN_MLIR_LIBS
      MLIRParser MLIRPass MLIRTransforms MLIRIR MLIROptLib
      MLIRArithDialect MLIRMathDialect MLIRMathTransforms MLIRFuncDialect MLIRSCFDialect MLIRControlFlowDialect MLIRVectorDialect
      MLIRLLVMDialect MLIRMemRefDialect MLIRAMXDialect MLIRX86VectorDialect MLIRNVVMDialect
      MLIRArithToLLVM MLIRControlFlowToLLVM MLIRConvertToLLVMPass MLIRFuncToLLVM MLIRMathToLLVM MLIRReconcileUnrealizedCasts
      MLIRSCFToControlFlow MLIRVectorToLLVM MLIRVectorToLLVMPass MLIRNVVMToLLVM
      MLIRTargetLLVMIRExport MLIRBuiltinToLLVMIRTranslation MLIRLLVMToLLVMIRTranslation MLIRNVVMToLLVMIRTranslation
      ${QUERN_LLVM_LIBS})
else()
  set(QUERN_MLIR_LIBS MLIR LLVM)
endif()
# Interface target: includes (as system headers), definitions, libraries.
add_library(quern_mlir INTERFACE)
target_include_directories(quern_mlir SYSTEM INTERFACE ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})
target_compile_definitions(quern_mlir INTERFACE ${LLVM_DEFINITIONS_LIST})
target_link_libraries(quern_mlir INTERFACE ${QUERN_MLIR_LIBS})
if(QUERN_STATIC)
  # LLVM's targets name libz3, libxml2, ...: only those that a linked object calls.
  target_link_options(quern_mlir INTERFACE -Wl,--as-needed)
endif()
