#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>

namespace ballast {

/// The system calls behind everything that changes a file, in one place and replaceable, so that tests can make a disk
/// fill up, a write come up short or a process stop between any two of them. Each behaves as the POSIX call of its
/// name; the defaults are those calls.
class FileCalls {
public:
    FileCalls() = default;
    virtual ~FileCalls() = default;
    FileCalls(const FileCalls&) = delete;
    FileCalls& operator=(const FileCalls&) = delete;

    virtual int open(const char* path, int flags, mode_t mode) const;
    virtual ssize_t write(int descriptor, const void* data, std::size_t bytes) const;
    virtual int fsync(int descriptor) const;
    virtual int ftruncate(int descriptor, off_t bytes) const;
    virtual int rename(const char* from, const char* to) const;
    virtual int unlink(const char* path) const;
};

/// The operating system itself.
inline const FileCalls kSystemCalls{};

/// A file's bytes, mapped read-only. The file must not shrink while it is mapped. Throws IoError, naming the path and
/// the reason, for what is not a readable regular file. An empty file is an empty view.
class MappedFile {
public:
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;

    std::span<const std::byte> bytes() const { return {data_, size_}; }
    std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

/// The whole content of a file, or of a pipe until its end. Throws IoError.
std::string read_file(const std::filesystem::path& path);

/// A file that is written piece by piece under a temporary name in the directory of `path` and takes its place whole
/// on commit(): at every moment, through any crash, `path` is the old file, absent, or the complete new one. Every
/// function throws IoError; without a successful commit() the destructor removes the temporary file. What exists at
/// `path` and is not a regular file, such as a device, is refused; a symbolic link is replaced, not followed.
class AtomicFile {
public:
    explicit AtomicFile(std::filesystem::path path, const FileCalls& calls = kSystemCalls);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    void write(std::span<const std::byte> bytes);
    void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

    /// Syncs the file, renames it to its path, syncs the directory. No write() after it.
    void commit();

private:
    std::filesystem::path path_;
    std::filesystem::path temporary_;
    const FileCalls& calls_;
    int descriptor_ = -1;
    bool renamed_ = false;
};

/// AtomicFile in one call. When it throws, `path` is what it was before, and nothing else is left behind.
void write_file_atomic(const std::filesystem::path& path, std::span<const std::byte> bytes,
                       const FileCalls& calls = kSystemCalls);
void write_file_atomic(const std::filesystem::path& path, std::string_view text, const FileCalls& calls = kSystemCalls);

/// A file that grows by whole lines or records, created when missing. They go to the operating system as they come, so
/// nothing is lost when the process dies; sync() makes them survive the machine. Every function throws IoError.
class AppendFile {
public:
    explicit AppendFile(std::filesystem::path path, const FileCalls& calls = kSystemCalls);
    ~AppendFile();
    AppendFile(AppendFile&& other) noexcept;
    AppendFile& operator=(AppendFile&&) = delete;

    /// Appends `line` and a newline. When that fails, the part that was written is taken back.
    void append_line(std::string_view line);
    /// The same with `bytes` as they are, for files that are not text.
    void append(std::string_view bytes);
    void sync();

    std::int64_t size() const { return size_; }

    /// Cuts the file back to its first `size` bytes; `size` at most size().
    void truncate(std::int64_t size);

    /// Removes what follows the last newline: the line a dying process did not finish. Returns the bytes removed.
    std::int64_t cut_torn_line();

private:
    std::filesystem::path path_;
    const FileCalls* calls_;
    int descriptor_ = -1;
    std::int64_t size_ = 0;
};

/// Makes the names in a directory survive a crash of the machine. Throws IoError.
void sync_directory(const std::filesystem::path& directory, const FileCalls& calls = kSystemCalls);

/// Renames a file or directory within one file system and syncs the directory it ends up in. Throws IoError.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to,
                    const FileCalls& calls = kSystemCalls);

/// A 64-bit checksum against damage (not against malice), fed in pieces of any size: only the concatenation counts.
/// Four lanes of multiply, rotate, multiply, every step a bijection of what it replaces, so that damage within one
/// aligned 8-byte word is always found, and other damage missed once in 2^64. The value is the same in every version.
class Checksum {
public:
    void add(std::span<const std::byte> bytes);
    void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
    std::uint64_t value() const;

private:
    static constexpr std::size_t kBlock = 32;
    void add_block(const std::byte* block);

    std::uint64_t lanes_[4] = {1, 2, 3, 4};
    std::uint64_t size_ = 0;
    std::byte pending_[kBlock] = {};
};

std::uint64_t checksum(std::span<const std::byte> bytes);

} // namespace ballast
