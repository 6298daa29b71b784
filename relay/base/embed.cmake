# Writes the file IN as a C array to OUT: cmake -D IN=... -D OUT=... -P embed.cmake
file(READ ${IN} octets HEX)
string(REGEX REPLACE "(................................)" "\\1\n" octets "${octets}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," octets "${octets}")
file(WRITE ${OUT}
  "#include \"relay/base/provider.h\"\n"
  "const unsigned char provider_copy[] = {\n${octets}\n};\n"
  "const size_t provider_copy_length = sizeof provider_copy;\n")
