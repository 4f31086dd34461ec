#include <algorithm>
#include <string>
#include <vector>

namespace maze {

template <typename T>
class Grid {
 public:
  Grid(int width, int height, T value = {}) : width_(width), cells_(width * height, value) {}

  T& at(int x, int y) { return cells_[y * width_ + x]; }

  std::vector<std::vector<T>> rows() const {
    std::vector<std::vector<T>> found;
    for (auto first = cells_.begin(); first != cells_.end(); first += width_) {
      found.emplace_back(first, first + width_);
    }
    return found;
  }

 private:
  int width_;
  std::vector<T> cells_;
};

std::string draw(const Grid<char>& grid) {
  std::string text = "";
  for (const auto& row : grid.rows()) {
    std::for_each(row.begin(), row.end(), [&text](char cell) { text += cell == '\0' ? ' ' : cell; });
    text += "|\n";
  }
  return text;
}

}  // namespace maze
