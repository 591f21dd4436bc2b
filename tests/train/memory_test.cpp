#include "ballast/train/memory.h"

#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/memory.h"
#include "ballast/config/load.h"
#include "ballast/train/flight_recorder.h"
#include "ballast/train/learner.h"
#include "catch.h"
#include "sanitizer.h"
#include "temporary_directory.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

double bytes_of(const MemoryEstimate& estimate, const std::string& name) {
    for (const MemoryPart& part : estimate.parts)
        if (part.name == name) return part.bytes;
    FAIL("no part is called " + name);
    return 0;
}

void write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

constexpr std::int64_t kMebi = 1 << 20;

} // namespace

TEST_CASE("the plan of a step takes exactly the memory of the step") {
    const TemporaryDirectory directory;
    std::string text;
    for (int i = 0; i < 200; ++i)
        text += "the cat sat on mat " + std::to_string(i * i) + ".\n";
    write(directory / "text.txt", text);
    const std::string base = R"({"data": {"path": "text.txt"},
        "model": {"layers": 3, "heads": 4, "width": 32, "context": 24}, "train": {"batch": 6}})";
    const std::vector<std::string> overrides = GENERATE(
        std::vector<std::string>{}, std::vector<std::string>{"stability.probe_every=0"},
        std::vector<std::string>{"train.micro_batch=2", "optimizer.kind=sgd"},
        std::vector<std::string>{"model.norm.placement=post", "model.norm.kind=rmsnorm", "model.dropout=0.1"},
        std::vector<std::string>{"model.ffn.kind=swiglu", "model.position=rope", "model.kv_heads=2", "model.bias=true"},
        std::vector<std::string>{"model.tie_embeddings=false", "model.position=alibi", "loss.z_loss=1e-4",
                                 "stability.on_non_finite=skip"});
    CAPTURE(overrides);
    const Config config = config_from_json(base, directory / "config.json", overrides);
    const Dataset data(data_options(config));
    const MemoryEstimate estimate = estimate_memory(config, data.vocab_size(), 1000);

    Learner learner(config, data);
    LayerProbe probe(learner.table(), config.optimizer);
    for (std::int64_t step = 1; step <= 2; ++step)
        learner.gradients(step, step, config.stability.probe_every > 0 ? &probe : nullptr);
    const auto array =
        static_cast<double>(Arena::block_bytes(sizeof(float) * static_cast<std::size_t>(learner.table().size())));
    CHECK(bytes_of(estimate, "activations") ==
          static_cast<double>(Arena::block_bytes(learner.tape().activation_bytes())));
    CHECK(bytes_of(estimate, "parameters") == array);
    CHECK(bytes_of(estimate, "gradients") == array);
    CHECK(bytes_of(estimate, "moments") == array * static_cast<double>(learner.optimizer().moments().size()));
    const auto state = static_cast<double>(state_bytes(learner.table(), learner.optimizer().moments().size()));
    CHECK(bytes_of(estimate, "snapshots") == 2 * state);
    CHECK(bytes_of(estimate, "undo copy") == (config.stability.on_non_finite == Policy::skip ? state : 0));
    CHECK(bytes_of(estimate, "probes") == (config.stability.probe_every > 0 ? array : 0));
    CHECK(bytes_of(estimate, "batches") == 2.0 * sizeof(std::int32_t) * 6 * 24);
    CHECK(bytes_of(estimate, "program and data") >= 1000);
}

TEST_CASE("a plan of any size takes no memory, and what cannot fit is refused with its largest parts") {
    Config config;
    config.data.path = "x";
    config.model.layers = 50;
    config.model.width = 1 << 16;
    config.model.heads = 512;
    config.model.context = 4096;
    config.train.batch = 1024;
    resolve(config);
    const std::int64_t before = peak_resident_memory();
    const MemoryEstimate estimate = estimate_memory(config, 50257, 0);
    // Some 11 MiB, and ThreadSanitizer's shadows of them.
    CHECK(peak_resident_memory() - before < (kPagesTellMemory ? 64 : 256) * kMebi);
    CHECK(estimate.bytes() > 1e15);

    std::string problem;
    try {
        require_memory(estimate, 16 * 1024 * kMebi);
    } catch (const Error& error) {
        problem = error.what();
    }
    CAPTURE(problem);
    CHECK(problem.starts_with("out of memory: the run needs about "));
    CHECK(problem.find("this machine allows 16.0 GiB; the largest parts: activations ") != std::string::npos);
    CHECK(problem.find("train.micro_batch") != std::string::npos);
    CHECK_NOTHROW(require_memory(estimate, std::numeric_limits<std::int64_t>::max()));
}

TEST_CASE("the memory limit is the least of the machine's and those of the control groups around the process") {
    const TemporaryDirectory root;
    CHECK(memory_limit(root.path()) > 0); // a system that says nothing: no limit of its own
    write(root / "proc/meminfo", "MemTotal:        8192 kB\nMemFree: 1 kB\n");
    CHECK(memory_limit(root.path()) == 8 * kMebi);
    write(root / "proc/self/cgroup", "0::/user/session\n");
    CHECK(memory_limit(root.path()) == 8 * kMebi);
    write(root / "sys/fs/cgroup/user/session/memory.max", "max\n");
    write(root / "sys/fs/cgroup/user/memory.max", "4194304\n");
    CHECK(memory_limit(root.path()) == 4 * kMebi);
    write(root / "sys/fs/cgroup/memory.max", "2097152\n"); // as inside a container
    CHECK(memory_limit(root.path()) == 2 * kMebi);
    write(root / "proc/self/cgroup", "5:cpu:/a\n4:memory:/docker/x\n0::/\n");
    write(root / "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "1048576\n");
    CHECK(memory_limit(root.path()) == kMebi);
    for (const char* nonsense : {"", "x", "5", ":", "::", "0::", "\n\n", "0:memory:"}) {
        write(root / "proc/self/cgroup", nonsense);
        CHECK(memory_limit(root.path()) <= 8 * kMebi);
    }
    write(root / "proc/meminfo", "MemTotal: 99999999999999999999 kB\n");
    CHECK(memory_limit(root.path()) > 0);
}

TEST_CASE("a process knows what it holds") {
    CHECK(resident_memory() > kMebi);
    CHECK(peak_resident_memory() >= resident_memory());
}
