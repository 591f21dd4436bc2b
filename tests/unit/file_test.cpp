#include "ballast/base/file.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "ballast/base/error.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

std::string message_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const IoError& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::uint64_t checksum_of(std::string_view text) { return checksum(std::as_bytes(std::span(text))); }

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

std::string random_bytes(std::mt19937& random, std::size_t size) {
    std::string text(size, '\0');
    for (char& c : text)
        c = static_cast<char>(random());
    return text;
}

/// Writes a few bytes a call, interrupted by signals in between, and runs out of space after `room` bytes.
class WornDisk final : public FileCalls {
public:
    explicit WornDisk(std::size_t room) : room_(room) {}

    ssize_t write(int descriptor, const void* data, std::size_t bytes) const override {
        if (++calls_ % 3 == 0) return errno = EINTR, -1;
        if (room_ == 0) return errno = ENOSPC, -1;
        const std::size_t some = std::min({bytes, room_, std::size_t{1} + calls_ % 7});
        room_ -= some;
        return FileCalls::write(descriptor, data, some);
    }

private:
    mutable std::size_t room_;
    mutable std::size_t calls_ = 0;
};

/// Fails the call number `fatal`, counting every call, and, when the process is to have died there, all later ones.
class FailingCalls final : public FileCalls {
public:
    FailingCalls(int fatal, bool dies) : fatal_(fatal), dies_(dies) {}

    int open(const char* path, int flags, mode_t mode) const override {
        return fails() ? -1 : FileCalls::open(path, flags, mode);
    }
    ssize_t write(int descriptor, const void* data, std::size_t bytes) const override {
        return fails() ? -1 : FileCalls::write(descriptor, data, std::min<std::size_t>(bytes, 5));
    }
    int fsync(int descriptor) const override { return fails() ? -1 : FileCalls::fsync(descriptor); }
    int ftruncate(int descriptor, off_t bytes) const override {
        return fails() ? -1 : FileCalls::ftruncate(descriptor, bytes);
    }
    int rename(const char* from, const char* to) const override { return fails() ? -1 : FileCalls::rename(from, to); }
    int unlink(const char* path) const override { return fails() ? -1 : FileCalls::unlink(path); }

    int count() const { return count_; }

private:
    bool fails() const {
        const int number = count_++;
        errno = EIO;
        return number == fatal_ || (dies_ && number > fatal_);
    }

    int fatal_;
    bool dies_;
    mutable int count_ = 0;
};

} // namespace

TEST_CASE("a mapped file and a read file hold the bytes of the file") {
    const TemporaryDirectory directory;
    std::mt19937 random(1);
    for (const std::size_t size : {0U, 1U, 4095U, 4096U, 65536U, 65537U, 300000U}) {
        const std::string content = random_bytes(random, size);
        write_file_atomic(directory / "file", content);
        CHECK(read_file(directory / "file") == content);
        MappedFile mapped(directory / "file");
        CHECK(mapped.text() == content);
        const MappedFile moved(std::move(mapped));
        CHECK(moved.text() == content);
    }
}

TEST_CASE("what cannot be read is named with the reason") {
    const TemporaryDirectory directory;
    const std::string missing = (directory / "missing").string();
    CHECK(message_of([&] { MappedFile file(missing); }) == missing + ": cannot read: No such file or directory");
    CHECK(message_of([&] { read_file(missing); }) == missing + ": cannot read: No such file or directory");
    CHECK(contains(message_of([&] { MappedFile file(directory.path()); }), "Is a directory"));
    CHECK(contains(message_of([&] { read_file(directory.path()); }), "Is a directory"));
    CHECK(contains(message_of([] { MappedFile file("/dev/null"); }), "not a regular file"));
    const fs::path pipe = directory / "pipe"; // to which nobody writes
    REQUIRE(::mkfifo(pipe.c_str(), 0666) == 0);
    CHECK(contains(message_of([&] { MappedFile file(pipe); }), "not a regular file"));
}

TEST_CASE("an atomic write replaces the file and leaves nothing else") {
    const TemporaryDirectory directory;
    write_file_atomic(directory / "file", std::string_view("old"));
    write_file_atomic(directory / "file", std::string_view("new"));
    CHECK(read_file(directory / "file") == "new");
    CHECK(names_in(directory.path()) == std::vector<std::string>{"file"});
}

TEST_CASE("an uncommitted atomic file never existed") {
    const TemporaryDirectory directory;
    {
        AtomicFile file(directory / "file");
        file.write(std::string_view("half"));
    }
    CHECK(names_in(directory.path()).empty());
}

TEST_CASE("an atomic write does not replace what is not a file") {
    const TemporaryDirectory directory;
    const fs::path pipe = directory / "pipe";
    REQUIRE(::mkfifo(pipe.c_str(), 0666) == 0);
    CHECK(message_of([&] { write_file_atomic(pipe, std::string_view("x")); }) ==
          pipe.string() + ": cannot write: not a regular file");
    CHECK(fs::is_fifo(pipe));
    CHECK(names_in(directory.path()) == std::vector<std::string>{"pipe"});
}

TEST_CASE("a name left behind by a dead process is not in the way") {
    const TemporaryDirectory directory;
    std::ofstream(directory / (".file." + std::to_string(::getpid()) + "-0.tmp")) << "left behind";
    write_file_atomic(directory / "file", std::string_view("new"));
    CHECK(read_file(directory / "file") == "new");
}

TEST_CASE("short and interrupted writes are completed") {
    const TemporaryDirectory directory;
    std::mt19937 random(2);
    for (const std::size_t size : {1U, 2U, 100U, 5000U}) {
        const WornDisk disk(size);
        const std::string content = random_bytes(random, size);
        write_file_atomic(directory / "file", content, disk);
        CHECK(read_file(directory / "file") == content);
    }
}

TEST_CASE("a full disk keeps the old file and names the reason") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "file";
    write_file_atomic(path, std::string_view("old"));
    const std::string content(1000, 'x');
    for (const std::size_t room : {0U, 1U, 500U, 999U}) {
        const WornDisk disk(room);
        CHECK(message_of([&] { write_file_atomic(path, content, disk); }) ==
              path.string() + ": cannot write: No space left on device");
        CHECK(read_file(path) == "old");
        CHECK(names_in(directory.path()) == std::vector<std::string>{"file"});
    }
}

TEST_CASE("an atomic write is all or nothing at every system call") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "file";
    const std::string old_content = "the old content";
    const std::string new_content = "the new content, which is longer";
    const FailingCalls counter(-1, false);
    write_file_atomic(path, new_content, counter);
    REQUIRE(counter.count() > 5);

    for (int fatal = 0; fatal < counter.count(); ++fatal) {
        for (const bool dies : {false, true}) {
            CAPTURE(fatal, dies);
            fs::remove_all(directory.path());
            fs::create_directory(directory.path());
            write_file_atomic(path, old_content);
            const FailingCalls calls(fatal, dies);
            CHECK_THROWS_AS(write_file_atomic(path, new_content, calls), IoError);
            const std::string now = read_file(path);
            CHECK((now == old_content || now == new_content));
            if (!dies) CHECK(names_in(directory.path()) == std::vector<std::string>{"file"});
        }
    }
}

TEST_CASE("real refusals of the operating system are reported") {
    const TemporaryDirectory directory;
    CHECK(contains(message_of([&] { write_file_atomic(directory / "no/such/file", std::string_view("x")); }),
                   "No such file or directory"));
    fs::create_directories(directory / "folder/inside");
    CHECK(contains(message_of([&] { write_file_atomic(directory / "folder", std::string_view("x")); }),
                   "Is a directory"));
    CHECK(names_in(directory.path()) == std::vector<std::string>{"folder"});
    CHECK(contains(message_of([] { write_file_atomic("/proc/file", std::string_view("x")); }), "/proc/file"));

    AppendFile full("/dev/full");
    CHECK(message_of([&] { full.append_line("x"); }) == "/dev/full: cannot write: No space left on device");
}

TEST_CASE("a file size limit is an error, not a crash, and takes the partial line back") {
    const TemporaryDirectory directory;
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    AppendFile lines(directory / "lines");
    lines.append_line("whole");
    const rlimit limited{1000, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limited) == 0);
    const std::string big(5000, 'x');
    const std::string atomic_error = message_of([&] { write_file_atomic(directory / "big", big); });
    const std::string append_error = message_of([&] { lines.append_line(big); });
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    std::signal(SIGXFSZ, old_handler);

    CHECK(contains(atomic_error, "File too large"));
    CHECK(contains(append_error, "File too large"));
    CHECK(read_file(directory / "lines") == "whole\n");
    CHECK(names_in(directory.path()) == std::vector<std::string>{"lines"});
    lines.append_line("next");
    CHECK(read_file(directory / "lines") == "whole\nnext\n");
    CHECK(lines.size() == 11);
}

TEST_CASE("an append file holds whole lines whatever the disk does") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "lines";
    for (std::size_t room = 0; room < 40; ++room) {
        CAPTURE(room);
        fs::remove(path);
        const WornDisk disk(room);
        AppendFile file(path, disk);
        std::string expected;
        try {
            for (const std::string line : {"one", "two and a half", "", "three", "four is a longer line"}) {
                file.append_line(line);
                expected += line + "\n";
            }
        } catch (const IoError&) {}
        CHECK(read_file(path) == expected);
        CHECK(file.size() == static_cast<std::int64_t>(expected.size()));
    }
}

TEST_CASE("a torn last line is cut, and only that") {
    const TemporaryDirectory directory;
    const std::string content = "one\n\ntwo\nthree\n";
    for (std::size_t size = 0; size <= content.size(); ++size) {
        const std::string torn = content.substr(0, size);
        write_file_atomic(directory / "lines", torn);
        AppendFile file(directory / "lines");
        const std::string whole = torn.substr(0, torn.rfind('\n') == std::string::npos ? 0 : torn.rfind('\n') + 1);
        CHECK(file.cut_torn_line() == static_cast<std::int64_t>(torn.size() - whole.size()));
        CHECK(read_file(directory / "lines") == whole);
        file.append_line("more");
        CHECK(read_file(directory / "lines") == whole + "more\n");
    }
}

TEST_CASE("an append file is cut back to what a checkpoint remembers") {
    const TemporaryDirectory directory;
    AppendFile file(directory / "lines");
    file.append_line("kept");
    const std::int64_t remembered = file.size();
    file.append_line("dropped");
    file.sync();
    file.truncate(remembered);
    AppendFile moved(std::move(file));
    moved.append_line("again");
    CHECK(read_file(directory / "lines") == "kept\nagain\n");
    CHECK(contains(message_of([&] { moved.truncate(100); }), "it has 11"));
    CHECK(contains(message_of([&] { moved.truncate(-1); }), "cannot cut"));
}

TEST_CASE("a directory moves whole") {
    const TemporaryDirectory directory;
    fs::create_directory(directory / "from");
    write_file_atomic(directory / "from/file", std::string_view("x"));
    rename_durably(directory / "from", directory / "to");
    CHECK(read_file(directory / "to/file") == "x");
    CHECK(contains(message_of([&] { rename_durably(directory / "from", directory / "to"); }), "No such file"));
    CHECK(contains(message_of([&] { sync_directory(directory / "to/file"); }), "Not a directory"));
}

TEST_CASE("the checksum depends on the bytes alone, and on every one of them") {
    std::mt19937 random(3);
    for (const std::size_t size : {0U, 1U, 7U, 8U, 31U, 32U, 33U, 64U, 1000U}) {
        CAPTURE(size);
        const std::string content = random_bytes(random, size);
        const std::uint64_t whole = checksum_of(content);

        Checksum pieces;
        for (std::size_t begin = 0; begin < size;) {
            const std::size_t count = std::min<std::size_t>(size - begin, random() % 40);
            pieces.add(std::string_view(content).substr(begin, count));
            begin += count;
        }
        CHECK(pieces.value() == whole);
        CHECK(pieces.value() == whole); // asking does not change it

        std::set<std::uint64_t> values{whole};
        std::size_t variants = 1;
        for (std::size_t bit = 0; bit < 8 * size; ++bit, ++variants) {
            std::string damaged = content;
            damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
            values.insert(checksum_of(damaged));
        }
        for (std::size_t extra = 1; extra <= 40; ++extra, ++variants)
            values.insert(checksum_of(content + std::string(extra, '\0')));
        CHECK(values.size() == variants);
    }
}

TEST_CASE("checksums in existing checkpoints stay valid") {
    CHECK(checksum_of("") == 0x6e4e92aa5226a1d0U);
    const std::string_view text = "ballast keeps a ship upright; this line is longer than one block of 32 bytes";
    CHECK(checksum_of(text) == 0xd0810062a5e8ac06U);
}
