// Given to the compiler before every file when a wheel is made. GCC 12 gave this function a new version, which older systems lack;
// under its old one it is everywhere, and does what the engine's threads need.
#if defined(__linux__) && defined(__x86_64__)
__asm__(
    ".symver _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE, "
    "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");
#endif
