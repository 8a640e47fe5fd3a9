#include "threads.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
static inline void rest() { _mm_pause(); }
#else
static inline void rest() { std::this_thread::yield(); }
#endif

namespace verydeep {
namespace {

constexpr int PATIENCE = 4000;    // turns of a busy wait, some 50 microseconds, before a thread lets others run
constexpr long MOST_THREADS = 1024;

struct Team {
  const pid_t process = getpid();
  std::mutex turn, lock;
  std::condition_variable wake;
  std::vector<std::thread> threads;
  const std::function<void(int)>* work = nullptr;
  std::atomic<long> order{0};  // its number times MOST_THREADS, plus how many threads it is for
  std::atomic<int> left{0}, arrived{0};
  std::atomic<long> meetings{0};

  void serve(int number, long seen) {
    for (;;) {
      for (int i = 0; i < PATIENCE && order.load(std::memory_order_acquire) == seen; i++) rest();
      if (order.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> hold(lock);
        wake.wait(hold, [&] { return order.load(std::memory_order_acquire) != seen; });
      }
      seen = order.load(std::memory_order_acquire);
      if (number < seen % MOST_THREADS) {
        (*work)(number);
        left.fetch_sub(1, std::memory_order_release);
      }
    }
  }
};

// Never destroyed, as threads wait in it until the process ends; made anew in a forked process, which has none of them.
Team& team() {
  static std::mutex making;
  static Team* one = nullptr;
  std::lock_guard<std::mutex> hold(making);
  if (!one || one->process != getpid()) one = new Team;
  return *one;
}

std::atomic<Team*> working{nullptr};

}  // namespace

void in_parallel(int count, const std::function<void(int)>& work) {
  if (count <= 1) return work(0);
  Team& t = team();
  std::lock_guard<std::mutex> turn(t.turn);
  working = &t;
  while (int(t.threads.size()) < count - 1) {
    const int number = int(t.threads.size()) + 1;
    const long seen = t.order.load();
    t.threads.emplace_back([&t, number, seen] { t.serve(number, seen); });
    t.threads.back().detach();
  }
  t.work = &work;
  t.left = count - 1;
  t.arrived = 0;
  {
    std::lock_guard<std::mutex> hold(t.lock);
    t.order.store((t.order.load() / MOST_THREADS + 1) * MOST_THREADS + count, std::memory_order_release);
  }
  t.wake.notify_all();
  work(0);
  for (long i = 0; t.left.load(std::memory_order_acquire); i++)
    if (i < PATIENCE) rest();
    else std::this_thread::yield();
}

void wait_for_all(int count) {
  if (count <= 1) return;
  Team& t = *working;
  const long meeting = t.meetings.load(std::memory_order_acquire);
  if (t.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
    t.arrived.store(0, std::memory_order_relaxed);
    t.meetings.fetch_add(1, std::memory_order_release);
    return;
  }
  for (long i = 0; t.meetings.load(std::memory_order_acquire) == meeting; i++)
    if (i < PATIENCE) rest();
    else std::this_thread::yield();
}

}  // namespace verydeep
