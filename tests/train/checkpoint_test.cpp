#include "ballast/train/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <sys/resource.h>
#include <tuple>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/train/safetensors.h"
#include "catch.h"
#include "temporary_directory.h"
#include "train/fault_calls.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

constexpr const char* kFiles[] = {"config.json", "params.safetensors", "optim.safetensors", "state.json"};
constexpr std::string_view kConfig = "{\"name\": \"test\"}\n";

/// A few parameters with the moments of an optimizer, all told apart by `seed`.
struct Model {
    explicit Model(std::uint64_t seed = 1, std::int64_t width = 4, const std::string& last = "scale") {
        table.add("embedding", {3, width}, ParamInit::normal(1), DecayGroup::decay);
        table.add("norm.gain", {width}, ParamInit::normal(1), DecayGroup::no_decay);
        table.add(last, {}, ParamInit::normal(1), DecayGroup::decay);
        table.allocate(seed);
        const auto size = static_cast<std::size_t>(table.size());
        for (auto* moment : {&m, &v}) {
            moment->assign(size, -1);
            for (std::size_t i = 0; i < size; ++i)
                (*moment)[i] = static_cast<float>(seed * 1000 + i + (moment == &v ? 500 : 0));
        }
        moments = {{"m", m.data()}, {"v", v.data()}};
    }

    ParamTable table;
    std::vector<float> m, v;
    std::vector<Moment> moments;
};

/// Everything that a checkpoint restores, as bytes.
std::string bytes_of(const Model& model) {
    std::string bytes;
    for (const Param& param : model.table.params()) {
        for (const float* array : {static_cast<const float*>(model.table.values()), model.m.data(), model.v.data()})
            bytes.append(reinterpret_cast<const char*>(array + param.offset),
                         sizeof(float) * static_cast<std::size_t>(param.shape.elements()));
    }
    return bytes;
}

TrainerState state_of(std::int64_t step) {
    TrainerState state;
    state.step = step;
    state.tokens = 64 * step;
    state.skipped_batches = 3;
    state.stability.calm_losses = {4.1, 0.1};
    state.stability.first_loss = 4.1;
    state.stability.loss_spikes = 2;
    state.best_loss = 1.0 / 3;
    state.best_loss_step = step - 1;
    state.seconds = 12.5;
    state.resumed = 2;
    state.started = "2024-05-31T12:00:00Z";
    state.data_fingerprint = 0xfedcba9876543210U;
    state.vocab_size = 65;
    static const Tokenizer tokenizer = Tokenizer::characters_of("ab\n\"\u00e9\x01\U0001f600", "test");
    state.tokenizer = tokenizer;
    return state;
}

bool same(StabilityState a, StabilityState b) {
    if (std::isnan(a.first_loss) && std::isnan(b.first_loss)) a.first_loss = b.first_loss = 0;
    return a == b;
}

bool same(const TrainerState& a, const TrainerState& b) {
    const auto numbers = [](const TrainerState& s) {
        return std::tuple(s.step, s.tokens, s.skipped_batches, s.best_loss, s.best_loss_step, s.best_val_loss,
                          s.best_val_step, s.seconds, s.resumed, s.started, s.data_fingerprint, s.vocab_size);
    };
    return numbers(a) == numbers(b) && same(a.stability, b.stability) && a.tokenizer.kind() == b.tokenizer.kind() &&
           a.tokenizer.vocab_size() == b.tokenizer.vocab_size() && a.tokenizer.vocabulary() == b.tokenizer.vocabulary();
}

fs::path save(const fs::path& run, std::int64_t step, const Model& model, const FileCalls& calls = kQuickCalls) {
    return save_checkpoint(run, kConfig, state_of(step), model.table, model.moments, calls);
}

/// The problems of loading into `model`, which must then be unchanged.
std::vector<std::string> problems_of_load(const fs::path& checkpoint, Model& model) {
    const std::string before = bytes_of(model);
    TrainerState state = state_of(77);
    try {
        load_checkpoint(checkpoint, state, model.table, model.moments);
    } catch (const CheckpointError& error) {
        CHECK(bytes_of(model) == before);
        CHECK(same(state, state_of(77)));
        CHECK_FALSE(error.problems().empty());
        return error.problems();
    }
    return {};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

bool any_contains(const std::vector<std::string>& lines, const std::string& part) {
    return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) { return contains(line, part); });
}

/// Anew, since file systems wait for the disk where a file is emptied and written again.
void write_text(const fs::path& path, const std::string& text) {
    fs::remove(path);
    std::ofstream(path, std::ios::binary) << text;
}

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

} // namespace

TEST_CASE("a checkpoint restores everything bit for bit") {
    const TemporaryDirectory run;
    Model saved(1);
    saved.table.values()[0] = std::numeric_limits<float>::quiet_NaN();
    saved.m[0] = std::numeric_limits<float>::infinity();
    const fs::path path = save(run.path(), 1234, saved, kSystemCalls);
    CHECK(path == run.path() / "checkpoints" / "step-00001234");
    CHECK(names_in(path) ==
          std::vector<std::string>{"config.json", "optim.safetensors", "params.safetensors", "state.json"});

    Model loaded(2);
    TrainerState state;
    load_checkpoint(path, state, loaded.table, loaded.moments);
    CHECK(bytes_of(loaded) == bytes_of(saved));
    CHECK(same(state, state_of(1234)));

    const CheckpointInfo info = read_checkpoint_info(path);
    CHECK(info.config_json == kConfig);
    CHECK(same(info.state, state_of(1234)));
    verify_checkpoint(path);

    // The tensors carry the names that other programs will look for.
    const SafetensorsFile optim(path / "optim.safetensors");
    CHECK(optim.tensors().size() == 6);
    CHECK(optim.find("norm.gain.v")->shape == std::vector<std::int64_t>{4});
}

TEST_CASE("loading leaves the padding between parameters alone") {
    const TemporaryDirectory run;
    const fs::path path = save(run.path(), 1, Model(1));
    Model loaded(2);
    for (float* array : {loaded.m.data(), loaded.v.data()})
        std::fill_n(array, loaded.table.size(), -7.0F);
    TrainerState state;
    load_checkpoint(path, state, loaded.table, loaded.moments);
    std::vector<bool> owned(loaded.m.size(), false);
    for (const Param& param : loaded.table.params())
        std::fill_n(owned.begin() + param.offset, param.shape.elements(), true);
    for (std::size_t i = 0; i < owned.size(); ++i) {
        CHECK((loaded.m[i] == -7.0F) != owned[i]);
        if (!owned[i]) CHECK(loaded.table.values()[i] == 0);
    }
}

TEST_CASE("a state of nothing yet, and every tokenizer, come back") {
    const TemporaryDirectory run;
    std::int64_t step = 0;
    for (const Tokenizer& tokenizer :
         {Tokenizer::bytes(), Tokenizer::ids(50257), Tokenizer::characters_of("xyz", "t")}) {
        TrainerState state;
        state.step = step++;
        state.tokenizer = tokenizer;
        Model model;
        const fs::path path = save_checkpoint(run.path(), "", state, model.table, {});
        TrainerState loaded = state_of(9);
        load_checkpoint(path, loaded, model.table, {});
        CHECK(same(loaded, state));
    }
}

TEST_CASE("parameters load without the optimizer's file") {
    const TemporaryDirectory run;
    const Model saved(1);
    const fs::path path = save(run.path(), 5, saved);
    fs::remove(path / "optim.safetensors");
    Model loaded(2);
    CHECK(same(load_parameters(path, loaded.table), state_of(5)));
    for (const Param& param : saved.table.params())
        CHECK(std::memcmp(loaded.table.values() + param.offset, saved.table.values() + param.offset,
                          sizeof(float) * static_cast<std::size_t>(param.shape.elements())) == 0);
    CHECK(any_contains(problems_of_load(path, loaded), "optim.safetensors: cannot read: No such file"));
}

TEST_CASE("a flipped bit in any byte of any file is refused") {
    const TemporaryDirectory run;
    const fs::path path = save(run.path(), 5, Model(1));
    Model model(2);
    for (const char* name : kFiles) {
        const std::string whole = read_file(path / name);
        for (std::size_t at = 0; at < whole.size(); ++at) {
            for (const int mask : {1 << (at % 8), 0x20}) { // 0x20 turns lower-case letters into upper-case ones
                CAPTURE(name, at, mask);
                std::string damaged = whole;
                damaged[at] = static_cast<char>(damaged[at] ^ mask);
                write_text(path / name, damaged);
                const std::vector<std::string> problems = problems_of_load(path, model);
                REQUIRE_FALSE(problems.empty());
                CHECK(any_contains(problems, name));
                if (at % 16 == 0) {
                    CHECK_THROWS_AS(verify_checkpoint(path), CheckpointError);
                    CHECK_FALSE(newest_checkpoint(run.path()).path.has_value());
                }
            }
        }
        write_text(path / name, whole);
    }
    CHECK(problems_of_load(path, model).empty());
}

TEST_CASE("a file cut or lengthened anywhere is refused") {
    const TemporaryDirectory run;
    const fs::path path = save(run.path(), 5, Model(1));
    Model model(2);
    for (const char* name : kFiles) {
        const std::string whole = read_file(path / name);
        for (std::size_t size = 0; size < whole.size(); ++size) {
            CAPTURE(name, size);
            write_text(path / name, whole.substr(0, size));
            CHECK_FALSE(problems_of_load(path, model).empty());
        }
        for (const std::string& extra : {std::string("\n"), std::string(1, '\0'), std::string(" "), std::string("}")}) {
            write_text(path / name, whole + extra);
            CHECK_FALSE(problems_of_load(path, model).empty());
            write_text(path / name, extra + whole);
            CHECK_FALSE(problems_of_load(path, model).empty());
        }
        fs::remove(path / name);
        CHECK(any_contains(problems_of_load(path, model), std::string(name) + ": cannot read: No such file"));
        fs::create_directory(path / name);
        CHECK(any_contains(problems_of_load(path, model), name));
        fs::remove(path / name);
        write_text(path / name, whole);
    }
    CHECK(problems_of_load(path, model).empty());
}

TEST_CASE("files of two checkpoints do not mix") {
    const TemporaryDirectory run;
    const fs::path first = save(run.path(), 5, Model(1));
    const fs::path second = save(run.path(), 6, Model(2));
    write_text(run / "other.json", "{\"name\": \"best\"}\n"); // a config of the same length
    Model model(3);
    for (const char* name : kFiles) {
        CAPTURE(name);
        const std::string own = read_file(first / name);
        const fs::path other = name == std::string("config.json") ? run / "other.json" : second / name;
        write_text(first / name, read_file(other));
        CHECK_FALSE(problems_of_load(first, model).empty());
        write_text(first / name, own);
    }
    const std::string params = read_file(first / "params.safetensors");
    write_text(first / "params.safetensors", read_file(first / "optim.safetensors"));
    CHECK_FALSE(problems_of_load(first, model).empty());
    write_text(first / "params.safetensors", params);
    CHECK(problems_of_load(first, model).empty());

    fs::rename(second, checkpoint_path(run.path(), 7));
    CHECK(any_contains(problems_of_load(checkpoint_path(run.path(), 7), model), "it is the state of step 6"));
    fs::rename(checkpoint_path(run.path(), 7), run / "copy"); // under a name of the user's it is what it is
    CHECK(problems_of_load(run / "copy", model).empty());
}

TEST_CASE("every tensor that does not fit the model is listed") {
    const TemporaryDirectory run;
    const fs::path path = save(run.path(), 5, Model(1));
    Model wider(2, 6, "other");
    const std::vector<std::string> problems = problems_of_load(path, wider);
    const std::string params = (path / "params.safetensors").string();
    CHECK(any_contains(problems, params + ": tensor \"embedding\" is F32 [3, 4]; the model has it as F32 [3, 6]"));
    CHECK(any_contains(problems, params + ": tensor \"norm.gain\" is F32 [4]; the model has it as F32 [6]"));
    CHECK(any_contains(problems, params + ": tensor \"other\" is missing; the model has it as F32 []"));
    CHECK(any_contains(problems, params + ": tensor \"scale\", F32 [], is not in the model"));
    CHECK(any_contains(problems, "\"embedding.v\" is F32 [3, 4]"));
    CHECK(problems.size() == 12);

    // An optimizer that keeps other moments.
    Model model(2);
    TrainerState state;
    const std::vector<Moment> velocity{{"velocity", model.m.data()}};
    CHECK_THROWS_WITH(load_checkpoint(path, state, model.table, velocity),
                      ContainsSubstring("\"scale.velocity\" is missing") &&
                          ContainsSubstring("\"scale.m\", F32 [], is not"));

    // Damage in several files is one error, too.
    write_text(path / "config.json", "x");
    write_text(path / "optim.safetensors", "x");
    const std::vector<std::string> damaged = problems_of_load(path, wider);
    CHECK(any_contains(damaged, "config.json: damaged"));
    CHECK(any_contains(damaged, "optim.safetensors: damaged"));
    CHECK(any_contains(damaged, "\"embedding\""));
}

TEST_CASE("a checkpoint of another format says which version wrote it") {
    const TemporaryDirectory run;
    const fs::path path = save(run.path(), 5, Model(1));
    write_text(path / "state.json", R"({"format": 2, "ballast": "9.1.0", "new": {}})");
    Model model(2);
    CHECK(any_contains(problems_of_load(path, model), "checkpoint format 2, written by ballast 9.1.0"));
    for (const std::string text : {"", "{}", "[]", "nonsense", R"({"format": "1"})", R"({"format":1,"ballast":"0"})",
                                   R"({"format":1,"ballast":"0","checksum":"0123456789abcdef"})",
                                   R"({"format":1,"ballast":"0","checksum":"0"})"}) {
        CAPTURE(text);
        write_text(path / "state.json", text);
        CHECK(any_contains(problems_of_load(path, model), "state.json: "));
    }
}

TEST_CASE("the newest whole checkpoint is found, with the reasons against newer ones") {
    const TemporaryDirectory run;
    CHECK_FALSE(newest_checkpoint(run.path()).path.has_value());
    CHECK(list_checkpoints(run.path()).empty());
    for (const std::int64_t step : {5, 10, 20, 123456789})
        save(run.path(), step, Model(1));
    fs::create_directories(run / "checkpoints/.tmp-step-00000030");
    fs::create_directories(run / "checkpoints/step-7");
    fs::create_directories(run / "checkpoints/step-00000007x");
    fs::create_directories(run / "checkpoints/step-00000040");
    write_text(run / "checkpoints/notes", "x");
    CHECK(list_checkpoints(run.path()) == std::vector<std::int64_t>{5, 10, 20, 40, 123456789});

    CHECK(newest_checkpoint(run.path()).path == run / "checkpoints/step-123456789");
    write_text(run / "checkpoints/step-123456789/params.safetensors", "x");
    fs::remove(run / "checkpoints/step-00000020/optim.safetensors");
    const NewestCheckpoint newest = newest_checkpoint(run.path());
    CHECK(newest.path == run / "checkpoints/step-00000010");
    REQUIRE(newest.passed_over.size() == 3);
    CHECK(contains(newest.passed_over[0], "step-123456789/params.safetensors: damaged"));
    CHECK(contains(newest.passed_over[1], "step-00000040/state.json: cannot read"));
    CHECK(contains(newest.passed_over[2], "step-00000020/optim.safetensors: cannot read"));
}

TEST_CASE("pruning keeps the newest good ones and the best") {
    const TemporaryDirectory run;
    for (std::int64_t step = 1; step <= 6; ++step)
        save(run.path(), step, Model(1));
    CHECK(prune_checkpoints(run.path(), 0, std::array<std::int64_t, 1>{2}).empty());
    CHECK(list_checkpoints(run.path()).size() == 6);
    write_text(run / "checkpoints/step-00000006/params.safetensors", "x"); // does not count as kept
    CHECK(prune_checkpoints(run.path(), 2, std::array<std::int64_t, 1>{1}) == std::vector<std::int64_t>{3, 2});
    CHECK(list_checkpoints(run.path()) == std::vector<std::int64_t>{1, 4, 5, 6});
    CHECK(prune_checkpoints(run.path(), 2, std::array<std::int64_t, 1>{1}).empty());
    CHECK(newest_checkpoint(run.path()).path == checkpoint_path(run.path(), 5));
    CHECK(prune_checkpoints(run.path(), 1, std::array<std::int64_t, 1>{0}) == std::vector<std::int64_t>{4, 1});
    CHECK(names_in(run / "checkpoints").size() == 2);
}

TEST_CASE("a whole checkpoint is never overwritten, a damaged one is replaced") {
    const TemporaryDirectory run;
    const fs::path path = save(run.path(), 5, Model(1));
    const std::string params = read_file(path / "params.safetensors");
    save(run.path(), 5, Model(2));
    CHECK(read_file(path / "params.safetensors") == params);
    write_text(path / "params.safetensors", "x");
    save(run.path(), 5, Model(2));
    Model loaded(3);
    CHECK(problems_of_load(path, loaded).empty());
    CHECK(bytes_of(loaded) == bytes_of(Model(2)));
    CHECK(names_in(run / "checkpoints") == std::vector<std::string>{"step-00000005"});
}

TEST_CASE("what an unfinished save left behind is removed by the next one") {
    const TemporaryDirectory run;
    fs::create_directories(run / "checkpoints/.tmp-step-00000003/inside");
    write_text(run / "checkpoints/.tmp-step-00000004", "x");
    write_text(run / "checkpoints/.tmp-step-00000003/params.safetensors", "torn");
    CHECK_FALSE(newest_checkpoint(run.path()).path.has_value());
    save(run.path(), 3, Model(1));
    CHECK(names_in(run / "checkpoints") == std::vector<std::string>{"step-00000003"});
}

TEST_CASE("a save that fails or dies at any system call leaves the previous checkpoint") {
    const Model old_model(1);
    const Model new_model(2);
    int calls_of_a_save = 0;
    {
        const TemporaryDirectory run;
        const FaultCalls counter(-1, FaultCalls::Fault::error);
        save(run.path(), 6, new_model, counter);
        calls_of_a_save = counter.count();
    }
    REQUIRE(calls_of_a_save > 25);
    for (int where = 0; where < calls_of_a_save; ++where) {
        for (const auto fault : {FaultCalls::Fault::error, FaultCalls::Fault::death}) {
            CAPTURE(where, static_cast<int>(fault));
            const TemporaryDirectory run;
            const fs::path old_path = save(run.path(), 5, old_model);
            const int status = in_child_process([&] {
                const FaultCalls calls(where, fault);
                save(run.path(), 6, new_model, calls);
            });
            // The first calls sync the run's directory when it makes the folder, which is there by now.
            if (status != 0)
                CHECK(status == (fault == FaultCalls::Fault::death ? 9 : 1));
            else
                CHECK(where >= calls_of_a_save - 2);

            const NewestCheckpoint newest = newest_checkpoint(run.path());
            CHECK(newest.passed_over.empty());
            REQUIRE(newest.path.has_value());
            Model loaded(3);
            CHECK(problems_of_load(*newest.path, loaded).empty());
            CHECK(bytes_of(loaded) == bytes_of(*newest.path == old_path ? old_model : new_model));
            if (fault == FaultCalls::Fault::error)
                CHECK(names_in(run / "checkpoints").size() == list_checkpoints(run.path()).size());

            save(run.path(), 6, new_model); // and the run goes on
            CHECK(names_in(run / "checkpoints") == std::vector<std::string>{"step-00000005", "step-00000006"});
            CHECK(newest_checkpoint(run.path()).path == checkpoint_path(run.path(), 6));
        }
    }
}

TEST_CASE("a process that dies while it replaces or prunes a checkpoint loses no other") {
    for (int where = 0; where < 60; ++where) {
        CAPTURE(where);
        const TemporaryDirectory run;
        for (const std::int64_t step : {1, 2, 3})
            save(run.path(), step, Model(1));
        write_text(run / "checkpoints/step-00000003/params.safetensors", "x");
        in_child_process([&] {
            const FaultCalls calls(where, FaultCalls::Fault::death);
            save(run.path(), 3, Model(2), calls);
            prune_checkpoints(run.path(), 1, std::array<std::int64_t, 1>{0}, calls);
        });
        const std::vector<std::int64_t> steps = list_checkpoints(run.path());
        for (const std::int64_t step : steps)
            if (step < 3) verify_checkpoint(checkpoint_path(run.path(), step));
        const NewestCheckpoint newest = newest_checkpoint(run.path());
        REQUIRE(newest.path.has_value());
        CHECK((newest.path == checkpoint_path(run.path(), 3) || newest.path == checkpoint_path(run.path(), 2)));
    }
}

TEST_CASE("a file size limit fails the save with the system's reason") {
    const TemporaryDirectory run;
    const fs::path old_path = save(run.path(), 5, Model(1));
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limited{fs::file_size(old_path / "params.safetensors") - 1, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limited) == 0);
    std::string problem;
    try {
        save(run.path(), 6, Model(1));
    } catch (const IoError& error) {
        problem = error.what();
    }
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    std::signal(SIGXFSZ, old_handler);
    CHECK(contains(problem, "params.safetensors: cannot write: File too large"));
    CHECK(names_in(run / "checkpoints") == std::vector<std::string>{"step-00000005"});
    verify_checkpoint(old_path);
}

TEST_CASE("a run directory that cannot be written is an error") {
    const TemporaryDirectory run;
    CHECK_THROWS_AS(save(run / "missing", 1, Model(1)), IoError);
    write_text(run / "checkpoints", "a file");
    CHECK_THROWS_AS(save(run.path(), 1, Model(1)), IoError);
    CHECK_THROWS_AS(list_checkpoints(run.path()), IoError);
}
