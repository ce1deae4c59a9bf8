# Writes OUT: a table {name, text} of FILES, as raw string literals. STRUCT and TABLE name the C++ type and the array.
set(body "")
foreach(f IN LISTS FILES)
  get_filename_component(n ${f} NAME)
  file(READ ${f} text)
  string(APPEND body "  {\"${n}\", R\"qn_text(${text})qn_text\"},\n")
endforeach()
set(content "// Generated from files of kernels/.\nnamespace quern {\nstruct ${STRUCT} { const char *name, *text; };\n\
extern const ${STRUCT} ${TABLE}[];\nconst ${STRUCT} ${TABLE}[] = {\n${body}  {nullptr, nullptr}};\n} // namespace quern\n")
file(WRITE ${OUT} "${content}")
