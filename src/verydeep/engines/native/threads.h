// A team of threads that does one thing at a time, each its share.
#pragma once

#include <functional>

namespace verydeep {

// Run work(0), ..., work(count - 1), each in a thread of its own, and return when all are done.
// The calling thread does work(0). Calls from several threads take turns.
void in_parallel(int count, const std::function<void(int)>& work);

// Wait within `work` until all `count` threads have come here.
void wait_for_all(int count);

}  // namespace verydeep
