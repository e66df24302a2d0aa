"""Writers of small files that are well formed: ELF and Mach-O libraries and class files of given names. The validation links
resolve against such libraries, and the checker's tests make packages of them."""
