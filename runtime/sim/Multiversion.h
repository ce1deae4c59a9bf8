// Functions whose loops are compiled for several instruction sets; the program picks one when it is loaded.
#pragma once

#if defined(__x86_64__) && defined(__ELF__) && !defined(__SANITIZE_ADDRESS__)
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QSIM_MULTIVERSION // its instrumentation does not run in the resolver of a multiversioned function
#endif
#endif
#ifndef QSIM_MULTIVERSION
#define QSIM_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#else
#define QSIM_MULTIVERSION
#endif
