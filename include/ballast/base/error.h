#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace ballast {

/// Base of every exception the library throws. The library never prints and never exits; the command line turns each
/// type into one line per mistake and an exit status.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// A file could not be read or written (missing, unreadable, disk full, torn). Exit status 1.
class IoError : public Error {
public:
    using Error::Error;
};

/// Arguments that cannot be acted on: an existing output directory, a run that is not one. Exit status 2.
class UsageError : public Error {
public:
    using Error::Error;
};

/// Data that cannot be trained on: empty text, token ids beyond the vocabulary, unknown characters. Exit status 2.
class DataError : public Error {
public:
    using Error::Error;
};

/// An op was given tensors whose shapes do not fit: a bug of the caller. Names the op and the shapes. Exit status 1.
class ShapeError : public Error {
public:
    using Error::Error;
};

/// One mistake in a config file. `line` is 1-based; 0 when the mistake has no line (an override, a whole file).
struct ConfigProblem {
    std::string file;
    int line = 0;
    std::string path;    ///< dotted key path, such as `model.ffn.width`; may be empty
    std::string message; ///< "what is wrong; what was expected"

    /// `file:line: path: message`, leaving out the parts that are empty.
    std::string text() const;
};

/// All mistakes found in a config at once. Exit status 2.
class ConfigError : public Error {
public:
    explicit ConfigError(std::vector<ConfigProblem> problems);
    const std::vector<ConfigProblem>& problems() const { return problems_; }

private:
    std::vector<ConfigProblem> problems_;
};

/// All that is wrong with a checkpoint at once: missing or damaged files, tensors that do not fit the model. Exit
/// status 1.
class CheckpointError : public Error {
public:
    explicit CheckpointError(std::vector<std::string> problems);
    const std::vector<std::string>& problems() const { return problems_; }

private:
    std::vector<std::string> problems_;
};

} // namespace ballast
