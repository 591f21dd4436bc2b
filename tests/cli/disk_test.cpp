// Disks that are full or read-only, the real thing: the operating system refuses, not a test's double of it.

#include <cerrno>
#include <cstring>
#include <sched.h>
#include <string>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ballast/train/checkpoint.h"
#include "ballast/train/metrics.h"
#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

namespace {

/// Gives this process name spaces of its own, where it may mount what nobody else sees. Whether the system allows it.
bool enter_own_mounts() {
    if (::geteuid() == 0) {
        if (::unshare(CLONE_NEWNS) != 0) return false;
    } else if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return false;
    }
    return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

/// A small disk at `path`, for this process and its children.
bool mount_small_disk(const fs::path& path, const std::string& size) {
    return enter_own_mounts() && ::mount("ballast-test", path.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
}

constexpr int kCannotMount = 77;

/// Runs `ballast ARGUMENTS` again and again on a disk of its own of `size` bytes, which holds `disk/`, until it fails.
/// What is left is copied to `left/`. The script runs in the mount name space of its parent alone.
Outcome run_on_small_disk(Workplace& work, const std::string& size, const Workplace::Arguments& arguments) {
    fs::create_directory(work / "disk");
    const fs::path disk = work / "disk";
    const fs::path left = work / "left";
    const pid_t child = ::fork();
    if (child == 0) {
        if (!mount_small_disk(disk, size)) ::_exit(kCannotMount);
        const Outcome outcome = work.run(arguments);
        fs::copy(disk, left, fs::copy_options::recursive);
        ::_exit(outcome.status);
    }
    return work.finish(child);
}

} // namespace

TEST_CASE("a disk that fills up ends the run with the reason and leaves whole checkpoints and records") {
    Workplace work;
    work.write_small_run(R"("steps": 200, "checkpoint_every": 3, "keep_checkpoints": 0)");
    const Workplace::Arguments arguments = train_small({"--out", "disk/run", "--set", "log.csv=true"});
    const Outcome full = run_on_small_disk(work, "400k", arguments);
    if (full.status == kCannotMount) {
        WARN("this system lets nobody mount a tmpfs here: only the faked full disks were tested");
        return;
    }
    CAPTURE(full.out, full.err);
    CHECK(full.status == 1);
    CHECK(contains(full.err, "No space left on device"));
    const std::vector<ballast::StepRecord> records = ballast::read_metrics(work / "left/run/metrics.jsonl");
    REQUIRE(records.size() > 3);
    const std::vector<std::int64_t> steps = ballast::list_checkpoints(work / "left/run");
    REQUIRE_FALSE(steps.empty());
    for (const std::int64_t step : steps)
        ballast::verify_checkpoint(ballast::checkpoint_path(work / "left/run", step));
    CHECK(steps.back() + 3 >= records.back().step);

    // With room again it goes on to the end it would have come to.
    REQUIRE(work.run({"resume", "left/run", "--threads", "1"}).status == 0);
    REQUIRE(work.run(train_small({"--out", "unbroken"})).status == 0);
    for (const char* file : {"params.safetensors", "optim.safetensors"})
        CHECK(content(work / "left/run/checkpoints/step-00000200" / file) ==
              content(work / "unbroken/checkpoints/step-00000200" / file));
}

TEST_CASE("a directory that may only be read is refused before any work is lost") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small({"--out", "run"})).status == 0);
    fs::create_directory(work / "closed");
    const auto closed = [&](const fs::path& path) {
        return [path] {
            if (::geteuid() != 0) return;
            // The superuser may write everywhere but on a read-only file system.
            if (!enter_own_mounts() || ::mount(path.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
                ::mount("none", path.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0)
                ::_exit(kCannotMount);
        };
    };
    for (const char* folder : {"closed", "run", "run/checkpoints"})
        ::chmod((work / folder).c_str(), 0555);

    const Outcome fresh = work.run(train_small({"--out", "closed/run"}), closed(work / "closed"));
    const Outcome more = work.run({"resume", "run", "--threads", "1", "--set", "train.steps=40"}, closed(work / "run"));
    for (const char* folder : {"closed", "run", "run/checkpoints"})
        ::chmod((work / folder).c_str(), 0755);
    if (fresh.status == kCannotMount) {
        WARN("this system lets nobody mount here: the superuser cannot be kept from writing");
        return;
    }
    CAPTURE(fresh.err, more.err);
    CHECK(fresh.status == 1);
    CHECK(contains(fresh.err, "closed/run: cannot write: "));
    CHECK(fs::is_empty(work / "closed"));
    CHECK(more.status == 1);
    CHECK((contains(more.err, "Read-only file system") || contains(more.err, "Permission denied")));
    ballast::verify_checkpoint(ballast::checkpoint_path(work / "run", 20));
    CHECK(ballast::list_checkpoints(work / "run").back() == 20);
    REQUIRE(work.run({"resume", "run", "--threads", "1", "--set", "train.steps=40"}).status == 0);
}

TEST_CASE("two processes do not work on one run, and a lock without a process is no hindrance") {
    Workplace work;
    work.write_small_run(R"("steps": 1000000, "checkpoint_every": 100)");
    const pid_t first = work.start(train_small({"--out", "run"}));
    REQUIRE(wait_until([&] { return !ballast::list_checkpoints(work / "run").empty(); }));
    const std::string holder = std::to_string(first);
    // Each program that a test starts writes to the same two files; the first one has written what is looked at.
    for (const Workplace::Arguments& arguments :
         {Workplace::Arguments{"resume", "run", "--threads", "1"}, train_small({"--out", "run"})}) {
        const Outcome second = work.run(arguments);
        CAPTURE(second.err);
        CHECK(second.status == 2);
        CHECK((contains(second.err, "another process (" + holder + ") works on this run") ||
               contains(second.err, "run: already exists")));
    }
    CHECK(work.run({"eval", "run", "--threads", "1"}).status == 0); // reading is allowed
    CHECK_FALSE(ballast::list_checkpoints(work / "run").empty());
    ::kill(first, SIGKILL);
    REQUIRE(work.finish(first).status == 128 + SIGKILL);
    CHECK(fs::exists(work / "run/lock"));
    const std::int64_t newest = ballast::list_checkpoints(work / "run").back();
    const Outcome resumed =
        work.run({"resume", "run", "--threads", "1", "--set", "train.steps=" + std::to_string(newest + 10)});
    CAPTURE(resumed.err);
    CHECK(resumed.status == 0);
}
