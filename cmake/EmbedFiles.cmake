# Writes OUT: a table {name, text} of FILES, as raw string literals split where compilers limit their length.
set(body "")
foreach(f IN LISTS FILES)
  get_filename_component(n ${f} NAME)
  file(READ ${f} text)
  string(APPEND body "  {\"${n}\", R\"qn_text(${text})qn_text\"},\n")
endforeach()
set(content "// Generated from kernels/*.qn.\nnamespace quern {\nstruct ShippedKernel { const char *name, *text; };\n\
extern const ShippedKernel shippedKernels[];\nconst ShippedKernel shippedKernels[] = {\n${body}  {nullptr, nullptr}};\n} // namespace quern\n")
file(WRITE ${OUT} "${content}")
