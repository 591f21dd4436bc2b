#include "ballast/data/dataset.h"

#include <cmath>
#include <functional>
#include <random>
#include <string>

#include "ballast/base/error.h"
#include "ballast/base/memory.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

std::string message_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

DataOptions options_for(const fs::path& path, double val_fraction = 0.1) {
    DataOptions options;
    options.path = path;
    options.val_fraction = val_fraction;
    return options;
}

void write_ids(const fs::path& path, const std::vector<std::uint16_t>& ids) {
    std::string bytes;
    for (const std::uint16_t id : ids) {
        bytes.push_back(static_cast<char>(id % 256));
        bytes.push_back(static_cast<char>(id / 256));
    }
    write_file_atomic(path, bytes);
}

std::vector<std::int32_t> all(TokenView tokens) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < tokens.size(); ++i)
        ids.push_back(tokens[i]);
    return ids;
}

std::string load_error(const DataOptions& options) {
    return message_of([&] { Dataset dataset(options); });
}

} // namespace

TEST_CASE("text is split in two and can be read back") {
    const TemporaryDirectory directory;
    std::mt19937 random(1);
    for (const std::string alphabet_end : {"z", "\xc3\xa9"}) {
        for (const std::size_t length : {10U, 57U, 1000U}) {
            std::string text = alphabet_end;
            while (text.size() < length)
                text.push_back(static_cast<char>('a' + random() % 25));
            write_file_atomic(directory / "text", text);
            for (const Tokenizer::Kind kind : {Tokenizer::Kind::character, Tokenizer::Kind::byte}) {
                for (const double fraction : {0.0, 0.25, 0.5, 0.75}) {
                    DataOptions options = options_for(directory / "text", fraction);
                    options.tokenizer = kind;
                    const Dataset dataset(options);
                    const auto train = all(dataset.train());
                    const auto validation = all(dataset.validation());
                    const auto total = static_cast<double>(train.size() + validation.size());
                    CHECK(train.size() == static_cast<std::size_t>(total * (1 - fraction)));
                    CHECK(dataset.tokenizer().decode(train) + dataset.tokenizer().decode(validation) == text);
                    CHECK(dataset.vocab_size() == dataset.tokenizer().vocab_size());
                }
            }
        }
    }
}

TEST_CASE("a vocabulary that needs two bytes an id is kept whole") {
    const TemporaryDirectory directory;
    std::string text;
    for (int code = 0x800; code < 0x800 + 700; ++code)
        text += {static_cast<char>(0xe0 + code / 4096), static_cast<char>(0x80 + code / 64 % 64),
                 static_cast<char>(0x80 + code % 64)};
    write_file_atomic(directory / "text", text);
    const Dataset dataset(options_for(directory / "text", 0));
    CHECK(dataset.vocab_size() == 700);
    CHECK(dataset.train().bytes().size() == 1400);
    CHECK(dataset.tokenizer().decode(all(dataset.train())) == text);
}

TEST_CASE("a dataset keeps its tokens when it is moved") {
    const TemporaryDirectory directory;
    write_file_atomic(directory / "text", std::string_view("hello there, hello"));
    for (const Tokenizer::Kind kind : {Tokenizer::Kind::character, Tokenizer::Kind::byte}) {
        DataOptions options = options_for(directory / "text", 0);
        options.tokenizer = kind;
        Dataset first(options);
        const Dataset second(std::move(first));
        CHECK(second.tokenizer().decode(all(second.train())) == "hello there, hello");
    }
}

TEST_CASE("Tiny Shakespeare splits as nanoGPT splits it") {
    const fs::path path = fs::path(BALLAST_SOURCE_DIR) / "../shared/data/tinyshakespeare.txt";
    if (!fs::exists(path)) {
        WARN("no copy of Tiny Shakespeare here: not checked");
        return;
    }
    const Dataset dataset(options_for(path));
    CHECK(dataset.vocab_size() == 65);
    CHECK(dataset.train().size() == 1003854);
    CHECK(dataset.validation().size() == 111540);
    CHECK(dataset.unigram_entropy() == Approx(3.31).margin(0.01));
}

TEST_CASE("nanoGPT token files, with and without their vocabulary") {
    const TemporaryDirectory directory;
    const std::vector<std::uint16_t> train{1, 0, 2, 300, 2};
    const std::vector<std::uint16_t> validation{2, 2, 1};
    write_ids(directory / "train.bin", train);
    write_ids(directory / "val.bin", validation);

    SECTION("no meta.json: the largest id decides") {
        const Dataset dataset(options_for(directory.path()));
        CHECK(all(dataset.train()) == std::vector<std::int32_t>(train.begin(), train.end()));
        CHECK(all(dataset.validation()) == std::vector<std::int32_t>(validation.begin(), validation.end()));
        CHECK(dataset.vocab_size() == 301);
        CHECK(dataset.tokenizer().kind() == Tokenizer::Kind::ids);
    }
    SECTION("the largest id may be in the validation split") {
        write_ids(directory / "val.bin", {1, 999});
        CHECK(Dataset(options_for(directory.path())).vocab_size() == 1000);
    }
    SECTION("vocab_size is taken at its word") {
        DataOptions options = options_for(directory.path());
        options.vocab_size = 512;
        CHECK(Dataset(options).vocab_size() == 512);
        options.vocab_size = 300;
        CHECK(load_error(options) ==
              (directory / "train.bin").string() + ": token 3 has id 300; expected ids from 0 to 299 (vocab_size 300)");
        write_ids(directory / "train.bin", {0, 1, 2});
        write_ids(directory / "val.bin", {0, 1, 2, 3, 65535});
        CHECK(contains(load_error(options), "val.bin: token 4 has id 65535"));
    }
    SECTION("meta.json names the characters, as a list or as Python writes a dictionary") {
        write_ids(directory / "train.bin", {1, 0, 2});
        for (const std::string meta : {R"({"vocab_size": 3, "itos": ["\n", "a", "é"]})",
                                       R"({"itos": {"0": "\n", "1": "a", "2": "é"}, "stoi": {"a": 1}})"}) {
            write_file_atomic(directory / "meta.json", meta);
            const Dataset dataset(options_for(directory.path()));
            CHECK(dataset.vocab_size() == 3);
            CHECK(dataset.tokenizer().decode(all(dataset.train())) == "a\n\xc3\xa9");
        }
        write_file_atomic(directory / "meta.json", std::string_view(R"({"vocab_size": 50304})"));
        CHECK(Dataset(options_for(directory.path())).vocab_size() == 50304);
    }
    SECTION("ids beyond meta.json") {
        write_file_atomic(directory / "meta.json", std::string_view(R"({"vocab_size": 300})"));
        CHECK(contains(load_error(options_for(directory.path())), "token 3 has id 300; expected ids from 0 to 299 ("));
    }
    SECTION("bad meta.json") {
        for (const std::string meta :
             {"", "{", "[]", "3", R"({"vocab_size": "x"})", R"({"vocab_size": 0})", R"({"vocab_size": -1})",
              R"({"vocab_size": 2.5})", R"({"vocab_size": 99999999999})", R"({"itos": 3})", R"({"itos": ["a", 3]})",
              R"({"itos": {"0": "a", "2": "b"}})", R"({"vocab_size": 1, "itos": ["a", "b"]})", R"({"itos": ["ab"]})",
              R"({"vocab_size": 400, "itos": ["a", "a"]})"}) {
            CAPTURE(meta);
            write_file_atomic(directory / "meta.json", meta);
            write_ids(directory / "train.bin", {0, 0, 0});
            write_ids(directory / "val.bin", {0, 0, 0});
            const std::string message = load_error(options_for(directory.path()));
            CHECK(contains(message, "meta.json: "));
            CHECK(message.find('\n') == std::string::npos);
        }
    }
    SECTION("a meta.json that is nested deeper than a stack, has more behind its end, or claims any vocabulary") {
        write_ids(directory / "train.bin", {0, 0, 0});
        write_ids(directory / "val.bin", {0, 0, 0});
        constexpr std::size_t kDeep = 1000000;
        write_file_atomic(directory / "meta.json",
                          R"({"vocab_size": )" + std::string(kDeep, '[') + std::string(kDeep, ']') + "}");
        CHECK(contains(load_error(options_for(directory.path())), "vocab_size is an array; expected"));
        write_file_atomic(directory / "meta.json", R"({"vocab_size": 3})" + std::string(1, '\0') + "{");
        CHECK(contains(load_error(options_for(directory.path())), "not a JSON object"));
        write_file_atomic(directory / "meta.json", std::string_view(R"({"vocab_size": 2147483647})"));
        const std::int64_t before = peak_resident_memory();
        CHECK(Dataset(options_for(directory.path())).vocab_size() == 2147483647);
        CHECK(peak_resident_memory() - before < 64 << 20);
    }
    SECTION("without val.bin, or as one file, the last tokens validate") {
        fs::remove(directory / "val.bin");
        DataOptions options = options_for(directory.path(), 0.4);
        CHECK(all(Dataset(options).validation()) == std::vector<std::int32_t>{300, 2});
        options.path = directory / "train.bin";
        options.format = DataOptions::Format::bin;
        CHECK(all(Dataset(options).validation()) == std::vector<std::int32_t>{300, 2});
    }
    SECTION("torn and empty files") {
        write_file_atomic(directory / "val.bin", std::string_view("abc"));
        CHECK(contains(load_error(options_for(directory.path())), "val.bin: 3 bytes, an odd number"));
        write_file_atomic(directory / "val.bin", std::string_view(""));
        CHECK(contains(load_error(options_for(directory.path())), "val.bin: empty"));
        write_file_atomic(directory / "train.bin", std::string_view(""));
        CHECK(contains(load_error(options_for(directory.path())), "train.bin: empty"));
    }
}

TEST_CASE("data that cannot be trained on is refused in one line that names it") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "text";
    const auto error_for = [&](std::string_view text, double val_fraction, std::int64_t context) {
        write_file_atomic(path, text);
        DataOptions options = options_for(path, val_fraction);
        options.context = context;
        std::string message = load_error(options);
        CHECK((message.empty() || message.rfind(path.string() + ": ", 0) == 0));
        CHECK(message.find('\n') == std::string::npos);
        return message;
    };
    CHECK(contains(error_for("", 0.1, 1), "empty"));
    CHECK(contains(error_for("x", 0, 1), "the training split has 1 of 1 tokens; a context of 1 needs at least 2"));
    CHECK(contains(error_for("abcde", 0.1, 1), "the validation split has 1 of 5 tokens"));
    CHECK(contains(error_for("abcde", 0.01, 1), "the validation split has 1 of 5"));
    const std::string text(100, 'x');
    CHECK(error_for(text, 0.1, 9).empty());
    CHECK(contains(error_for(text, 0.1, 10), "the validation split has 10 of 100 tokens; a context of 10 needs at "
                                             "least 11"));
    CHECK(error_for(text, 0, 99).empty());
    CHECK(contains(error_for(text, 0, 100), "the training split has 100 of 100 tokens"));
    CHECK(contains(error_for("caf\xe9 noir", 0.5, 1), "not UTF-8 at byte offset 3 (0xe9)"));

    CHECK(contains(load_error(options_for(directory / "missing")), "missing: cannot read: No such file or directory"));
    CHECK(contains(load_error(options_for(directory.path())), "a directory without train.bin"));
    DataOptions options = options_for(directory.path());
    options.format = DataOptions::Format::text;
    CHECK(contains(load_error(options), "Is a directory"));
    options.format = DataOptions::Format::bin;
    CHECK(contains(load_error(options), "train.bin: cannot read: No such file or directory"));
    options = options_for(path);
    options.vocab_size = 100;
    CHECK(contains(load_error(options), "vocab_size is for token files"));
}

TEST_CASE("a trained model's vocabulary reads other data") {
    const TemporaryDirectory directory;
    write_file_atomic(directory / "text", std::string_view("cab"));
    DataOptions options = options_for(directory / "text", 0);
    options.vocabulary = Tokenizer::characters_of("abcd", "");
    const Dataset dataset(options);
    CHECK(dataset.vocab_size() == 4);
    CHECK(all(dataset.train()) == std::vector<std::int32_t>{2, 0, 1});
    options.vocabulary = Tokenizer::characters_of("ab", "");
    CHECK(contains(load_error(options), "text: the vocabulary lacks 'c' (U+0063), character 1"));

    write_ids(directory / "train.bin", {0, 1, 2, 3});
    options.path = directory.path();
    CHECK(contains(load_error(options), "train.bin: token 2 has id 2; expected ids from 0 to 1"));
    options.vocabulary = Tokenizer::characters_of("abcd", "");
    CHECK(Dataset(options).tokenizer().decode(all(Dataset(options).train())) == "abcd");
}

TEST_CASE("unigram entropy is that of the training split") {
    const TemporaryDirectory directory;
    std::string text;
    for (int i = 0; i < 64; ++i)
        text += "abcd";
    write_file_atomic(directory / "text", text + std::string(256, 'z'));
    CHECK(Dataset(options_for(directory / "text", 0.5)).unigram_entropy() == Approx(std::log(4.0)));
    write_file_atomic(directory / "text", std::string(100, 'x'));
    CHECK(Dataset(options_for(directory / "text", 0.5)).unigram_entropy() == 0);
}

TEST_CASE("the fingerprint tells data apart, and only data") {
    const TemporaryDirectory directory;
    const auto fingerprint = [&](const std::string& text, double val_fraction, Tokenizer::Kind kind) {
        write_file_atomic(directory / "text", text);
        DataOptions options = options_for(directory / "text", val_fraction);
        options.tokenizer = kind;
        return Dataset(options).fingerprint();
    };
    const auto character = Tokenizer::Kind::character;
    const std::uint64_t reference = fingerprint("hello, world", 0.25, character);
    CHECK(fingerprint("hello, world", 0.25, character) == reference);
    CHECK(fingerprint("hello, worle", 0.25, character) != reference);
    CHECK(fingerprint("hello, world", 0.5, character) != reference);
    CHECK(fingerprint("hello, world", 0.25, Tokenizer::Kind::byte) != reference);
    CHECK(fingerprint("hello, worldd", 0.25, character) != reference);
}
