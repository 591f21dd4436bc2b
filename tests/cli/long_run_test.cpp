// A run of many steps: nothing grows but the records.

#include <algorithm>
#include <string>

#include "ballast/train/checkpoint.h"
#include "ballast/train/metrics.h"
#include "ballast/train/run_directory.h"
#include "catch.h"
#include "program.h"
#include "sanitizer.h"

namespace fs = std::filesystem;

namespace {

/// KiB of memory that a process holds for itself, without pages of files; 0 when it has ended.
long held_kib(pid_t process) {
    const std::string status = content("/proc/" + std::to_string(process) + "/status");
    const std::string key = "RssAnon:";
    const std::size_t at = status.find(key);
    return at == std::string::npos ? 0 : std::stol(status.substr(at + key.size()));
}

/// Trains for `steps` and checks that the memory after a hundred steps is that at the end, and what is kept.
void train_long(std::int64_t steps) {
    Workplace work;
    work.write_small_run(R"("steps": )" + std::to_string(steps) + R"(, "checkpoint_every": )" +
                         std::to_string(steps / 20) + R"(, "keep_checkpoints": 2)");
    const pid_t child =
        work.start(train_small({"--out", "run", "--set", "train.eval_every=" + std::to_string(steps / 40), "--set",
                                "log.csv=true", "--set", "model.dropout=0.1"}));
    const fs::path records = work / "run/metrics.csv"; // a line a step, of at least 100 bytes
    REQUIRE(wait_until([&] { return fs::exists(records) && fs::file_size(records) > 100 * 300; }));
    const long early = held_kib(child);
    REQUIRE(early > 0);
    long late = early;
    while (const long now = held_kib(child)) {
        late = now;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    const Outcome outcome = work.finish(child);
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    std::printf("memory after a hundred steps: %ld KiB; after %lld: %ld KiB\n", early, static_cast<long long>(steps),
                late);
    // Pages that the system hands out late, not growth.
    if (kPagesTellMemory) CHECK(late - early <= (kCountsLines ? 512 : 256));

    REQUIRE(ballast::read_metrics(work / "run/metrics.jsonl").size() == static_cast<std::size_t>(steps));
    const std::int64_t best = ballast::RunDirectory::open(work / "run").summary().best_val_step;
    const std::vector<std::int64_t> kept = ballast::list_checkpoints(work / "run");
    const bool best_was_saved = best % (steps / 20) == 0;
    CHECK(kept.size() <= (best_was_saved ? 3U : 2U));
    CHECK(kept.back() == steps);
    if (best_was_saved) CHECK(std::find(kept.begin(), kept.end(), best) != kept.end());
    for (const std::int64_t step : kept)
        ballast::verify_checkpoint(ballast::checkpoint_path(work / "run", step));
}

} // namespace

TEST_CASE("memory stays flat and checkpoints are pruned over a thousand steps") { train_long(1000); }

TEST_CASE("memory stays flat and checkpoints are pruned over twenty thousand steps", "[long]") { train_long(20000); }
