// A file that lives as long as the object.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace moedge::test {

class TemporaryFile {
 public:
  TemporaryFile(const std::string& folder, const std::vector<uint8_t>& bytes) : path_(folder + "/moedge-test-XXXXXX") {
    const int file = mkstemp(path_.data());
    size_t written = 0;
    while (file >= 0 && written < bytes.size()) {
      const ssize_t more = write(file, bytes.data() + written, bytes.size() - written);
      if (more <= 0) break;
      written += static_cast<size_t>(more);
    }
    if (file >= 0) {
      fsync(file);  // direct reads of what is still only in the page cache would wait for it
      close(file);
    }
    if (file < 0 || written < bytes.size()) throw std::runtime_error("cannot write " + path_);
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace moedge::test
