#include "ballast/base/file.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "ballast/base/error.h"

namespace ballast {

namespace fs = std::filesystem;

int FileCalls::open(const char* path, int flags, mode_t mode) const { return ::open(path, flags, mode); }
ssize_t FileCalls::write(int descriptor, const void* data, std::size_t bytes) const {
    return ::write(descriptor, data, bytes);
}
int FileCalls::fsync(int descriptor) const { return ::fsync(descriptor); }
int FileCalls::ftruncate(int descriptor, off_t bytes) const { return ::ftruncate(descriptor, bytes); }
int FileCalls::rename(const char* from, const char* to) const { return ::rename(from, to); }
int FileCalls::unlink(const char* path) const { return ::unlink(path); }

namespace {

[[noreturn]] void fail(const fs::path& path, std::string_view action, int reason) {
    throw IoError(path.string() + ": cannot " + std::string(action) + ": " + std::generic_category().message(reason));
}

/// Repeats a system call that a signal interrupted.
template <class Call>
auto uninterrupted(Call&& call) {
    auto result = call();
    while (result < 0 && errno == EINTR)
        result = call();
    return result;
}

/// A descriptor that closes itself.
class Descriptor {
public:
    explicit Descriptor(int value) : value_(value) {}
    ~Descriptor() {
        if (value_ >= 0) ::close(value_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return value_; }

private:
    int value_;
};

int open_for_reading(const fs::path& path, int flags = 0) {
    const int descriptor = uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags); });
    if (descriptor < 0) fail(path, "read", errno);
    return descriptor;
}

/// Writes everything, however many calls it takes. Returns 0 or the reason.
int write_all(const FileCalls& calls, int descriptor, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t written = uninterrupted([&] { return calls.write(descriptor, bytes.data(), bytes.size()); });
        if (written < 0) return errno;
        if (written == 0) return EIO; // a regular file that takes nothing and gives no reason: not worth a loop
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return 0;
}

fs::path directory_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

} // namespace

MappedFile::MappedFile(const fs::path& path) {
    const Descriptor file(open_for_reading(path, O_NONBLOCK)); // does not wait for a named pipe's writer
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) fail(path, "read", errno);
    if (S_ISDIR(status.st_mode)) fail(path, "read", EISDIR);
    if (!S_ISREG(status.st_mode)) throw IoError(path.string() + ": cannot read: not a regular file");
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ == 0) return;
    void* const data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) fail(path, "map into memory", errno);
    data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

std::string read_file(const fs::path& path) {
    const Descriptor file(open_for_reading(path));
    std::string text;
    for (;;) {
        constexpr std::size_t kChunk = std::size_t{1} << 16;
        const std::size_t size = text.size();
        text.resize(size + kChunk);
        const ssize_t count = uninterrupted([&] { return ::read(file.get(), text.data() + size, kChunk); });
        if (count < 0) fail(path, "read", errno);
        text.resize(size + static_cast<std::size_t>(count));
        if (count == 0) return text;
    }
}

AtomicFile::AtomicFile(fs::path path, const FileCalls& calls) : path_(std::move(path)), calls_(calls) {
    // A rename would replace a device such as /dev/full by a plain file, for the whole machine.
    struct stat status {};
    if (::stat(path_.c_str(), &status) == 0) {
        if (S_ISDIR(status.st_mode)) fail(path_, "write", EISDIR);
        if (!S_ISREG(status.st_mode)) throw IoError(path_.string() + ": cannot write: not a regular file");
    }
    // A process that died may have left a name behind, so a taken one is not an error until many are.
    constexpr int kAttempts = 100;
    for (int attempt = 0; attempt < kAttempts && descriptor_ < 0; ++attempt) {
        temporary_ = directory_of(path_) / ("." + path_.filename().string() + "." + std::to_string(::getpid()) + "-" +
                                            std::to_string(attempt) + ".tmp");
        descriptor_ = uninterrupted(
            [&] { return calls_.open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
        if (descriptor_ < 0 && errno != EEXIST) fail(path_, "write", errno);
    }
    if (descriptor_ < 0) fail(path_, "write", EEXIST);
}

AtomicFile::~AtomicFile() {
    ::close(descriptor_);
    if (!renamed_) calls_.unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
    if (const int reason = write_all(calls_, descriptor_, bytes)) fail(path_, "write", reason);
}

void AtomicFile::commit() {
    if (uninterrupted([&] { return calls_.fsync(descriptor_); }) != 0) fail(path_, "write", errno);
    if (calls_.rename(temporary_.c_str(), path_.c_str()) != 0) fail(path_, "write", errno);
    renamed_ = true;
    sync_directory(directory_of(path_), calls_);
}

void write_file_atomic(const fs::path& path, std::span<const std::byte> bytes, const FileCalls& calls) {
    AtomicFile file(path, calls);
    file.write(bytes);
    file.commit();
}

void write_file_atomic(const fs::path& path, std::string_view text, const FileCalls& calls) {
    write_file_atomic(path, std::as_bytes(std::span(text)), calls);
}

AppendFile::AppendFile(fs::path path, const FileCalls& calls) : path_(std::move(path)), calls_(&calls) {
    descriptor_ =
        uninterrupted([&] { return calls.open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666); });
    if (descriptor_ < 0) fail(path_, "write", errno);
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) {
        const int reason = errno;
        ::close(descriptor_);
        fail(path_, "write", reason);
    }
    size_ = status.st_size;
}

AppendFile::~AppendFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), calls_(other.calls_), descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

void AppendFile::append_line(std::string_view line) {
    std::string text;
    text.reserve(line.size() + 1);
    text.append(line).push_back('\n');
    append(text);
}

void AppendFile::append(std::string_view bytes) {
    if (const int reason = write_all(*calls_, descriptor_, std::as_bytes(std::span(bytes)))) {
        // Best effort: should this fail too, cut_torn_line() repairs the file at the next start.
        (void)calls_->ftruncate(descriptor_, size_);
        fail(path_, "write", reason);
    }
    size_ += static_cast<std::int64_t>(bytes.size());
}

void AppendFile::sync() {
    if (uninterrupted([&] { return calls_->fsync(descriptor_); }) != 0) fail(path_, "write", errno);
}

void AppendFile::truncate(std::int64_t size) {
    if (size < 0 || size > size_)
        throw IoError(path_.string() + ": cannot cut to " + std::to_string(size) + " bytes: it has " +
                      std::to_string(size_));
    if (uninterrupted([&] { return calls_->ftruncate(descriptor_, size); }) != 0) fail(path_, "truncate", errno);
    size_ = size;
}

std::int64_t AppendFile::cut_torn_line() {
    const std::int64_t before = size_;
    const MappedFile content(path_);
    const std::size_t newline = content.text().rfind('\n');
    const std::int64_t whole = newline == std::string_view::npos ? 0 : static_cast<std::int64_t>(newline) + 1;
    if (whole < before) truncate(whole);
    return before - whole;
}

void sync_directory(const fs::path& directory, const FileCalls& calls) {
    const Descriptor descriptor(
        uninterrupted([&] { return calls.open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0); }));
    if (descriptor.get() < 0) fail(directory, "sync", errno);
    // Some file systems cannot sync a directory, and say so with EINVAL; there is nothing more to do on them.
    if (uninterrupted([&] { return calls.fsync(descriptor.get()); }) != 0 && errno != EINVAL)
        fail(directory, "sync", errno);
}

void rename_durably(const fs::path& from, const fs::path& to, const FileCalls& calls) {
    if (calls.rename(from.c_str(), to.c_str()) != 0) fail(from, "rename to " + to.string(), errno);
    sync_directory(directory_of(to), calls);
}

namespace {
static_assert(std::endian::native == std::endian::little, "checksums and token files are little-endian");

// Odd constants with no structure (the binary digits of 2^64 divided by the golden ratio, and of the square root of 3).
constexpr std::uint64_t kMultiplierA = 0x9e3779b97f4a7c15ULL;
constexpr std::uint64_t kMultiplierB = 0xbb67ae8584caa73bULL;

std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 32U)) * kMultiplierA;
    return x ^ (x >> 29U);
}
} // namespace

void Checksum::add_block(const std::byte* block) {
    for (std::size_t lane = 0; lane < 4; ++lane) {
        std::uint64_t word = 0;
        std::memcpy(&word, block + 8 * lane, 8);
        lanes_[lane] = std::rotl(lanes_[lane] + word * kMultiplierA, 31) * kMultiplierB;
    }
}

void Checksum::add(std::span<const std::byte> bytes) {
    const std::size_t filled = size_ % kBlock;
    size_ += bytes.size();
    if (filled > 0) {
        const std::size_t taken = std::min(kBlock - filled, bytes.size());
        std::copy_n(bytes.data(), taken, pending_ + filled);
        if (filled + taken < kBlock) return;
        add_block(pending_);
        bytes = bytes.subspan(taken);
    }
    for (; bytes.size() >= kBlock; bytes = bytes.subspan(kBlock))
        add_block(bytes.data());
    std::copy(bytes.begin(), bytes.end(), pending_);
}

std::uint64_t Checksum::value() const {
    Checksum whole = *this;
    if (const std::size_t filled = size_ % kBlock; filled > 0) {
        std::fill(whole.pending_ + filled, whole.pending_ + kBlock, std::byte{0});
        whole.add_block(whole.pending_);
    }
    std::uint64_t hash = size_; // tells zero bytes at the end from padding
    for (const std::uint64_t lane : whole.lanes_)
        hash = mix(hash ^ mix(lane)) * kMultiplierB;
    return mix(hash);
}

std::uint64_t checksum(std::span<const std::byte> bytes) {
    Checksum sum;
    sum.add(bytes);
    return sum.value();
}

} // namespace ballast
