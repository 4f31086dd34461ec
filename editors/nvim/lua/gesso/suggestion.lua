--- One suggestion at its place in a buffer: what of it is left to write after more was typed, and how it gets written.
--- Knows nothing of how it is drawn, nor of where it came from but the item the server sent.
local M = {}

---@class gesso.Place  the cursor's place when the server was asked
---@field bufnr integer
---@field row integer  0-based
---@field column integer  bytes
---@field line string

---@class gesso.Offer
---@field item table  as the server sent it
---@field bufnr integer
---@field row integer
---@field column integer  bytes; where the item's text begins
---@field before string  left of `column` on that line
---@field after string  right of the cursor on that line
---@field swallow integer  bytes right of the cursor that the item replaces
---@field text string  with \n for line ends
---@field crlf boolean
local Offer = {}
Offer.__index = Offer

--- The cursor's place in the current window.
---@return gesso.Place
function M.here()
  local cursor = vim.api.nvim_win_get_cursor(0)
  local bufnr, line = vim.api.nvim_get_current_buf(), vim.api.nvim_get_current_line()
  return { bufnr = bufnr, row = cursor[1] - 1, column = cursor[2], line = line }
end

local function byte_index(line, character, encoding)
  if encoding == "utf-8" then
    return math.min(character, #line)
  end
  local ok, index
  if vim.fn.has("nvim-0.11") == 1 then
    ok, index = pcall(vim.str_byteindex, line, encoding, character, false)
  else
    ok, index = pcall(vim.str_byteindex, line, character, encoding == "utf-16")
  end
  return ok and index or #line
end

--- Nil for an item that spans lines or does not begin on the line of the place: such a one cannot be drawn.
---@param place gesso.Place
---@param item table
---@param encoding string
---@return gesso.Offer|nil
function M.new(place, item, encoding)
  local text = type(item.insertText) == "table" and item.insertText.value or item.insertText
  local first, last = place.column, place.column
  if item.range then
    if item.range.start.line ~= place.row or item.range["end"].line ~= place.row then
      return nil
    end
    first = byte_index(place.line, item.range.start.character, encoding)
    last = math.max(byte_index(place.line, item.range["end"].character, encoding), place.column)
  end
  if first > place.column then
    return nil
  end
  local plain = text:gsub("\r\n", "\n")
  return setmetatable({
    item = item,
    bufnr = place.bufnr,
    row = place.row,
    column = first,
    before = place.line:sub(1, first),
    after = place.line:sub(place.column + 1),
    swallow = last - place.column,
    text = plain,
    crlf = plain ~= text,
  }, Offer)
end

--- The offers of a server's answer that can be drawn.
---@param place gesso.Place
---@param result table|nil
---@param encoding string
---@return gesso.Offer[]
function M.all(place, result, encoding)
  local offers = {}
  for _, item in ipairs(result and (result.items or result) or {}) do
    offers[#offers + 1] = M.new(place, item, encoding)
  end
  return offers
end

---@return string|nil id  by which the server knows it
function Offer:id()
  local arguments = self.item.command and self.item.command.arguments
  return arguments and arguments[1]
end

--- How many bytes of the text stand in the buffer already, typed since; nil where that disagrees with the text.
---@return integer|nil
function Offer:written()
  if vim.api.nvim_get_current_buf() ~= self.bufnr then
    return nil
  end
  local here = M.here()
  if here.row < self.row or (here.row == self.row and here.column < self.column) then
    return nil
  end
  if here.line:sub(here.column + 1) ~= self.after then
    return nil
  end
  local first = vim.api.nvim_buf_get_lines(self.bufnr, self.row, self.row + 1, false)[1]
  if not vim.startswith(first, self.before) then
    return nil
  end
  local typed = vim.api.nvim_buf_get_text(self.bufnr, self.row, self.column, here.row, here.column, {})
  local text = table.concat(typed, "\n")
  return vim.startswith(self.text, text) and #text or nil
end

--- What would still be written at the cursor; nil where nothing is left, or where the buffer says otherwise by now.
---@return string|nil
function Offer:rest()
  local written = self:written()
  return written and written < #self.text and self.text:sub(written + 1) or nil
end

--- Writes the first `bytes` of the rest at the cursor, or all of it, as an undo step of its own. All of it also
--- replaces what the item swallows. Returns how much of the item's text stands there now, in UTF-16 units as the
--- protocol counts, and whether that is all.
---@param bytes integer|nil
---@return integer, boolean
function Offer:write(bytes)
  local written = assert(self:written(), "the suggestion does not fit the buffer")
  local rest = self.text:sub(written + 1)
  local whole = bytes == nil or bytes >= #rest
  local text = whole and rest or rest:sub(1, bytes)
  local here, lines = M.here(), vim.split(text, "\n", { plain = true })
  vim.cmd("let &g:undolevels = &g:undolevels") -- begins a new undo step
  local last = here.column + (whole and self.swallow or 0)
  vim.api.nvim_buf_set_text(self.bufnr, here.row, here.column, here.row, last, lines)
  local column = #lines[#lines] + (#lines == 1 and here.column or 0)
  vim.api.nvim_win_set_cursor(0, { here.row + #lines, column })
  local length = self.text:sub(1, written + #text)
  local ends = self.crlf and select(2, length:gsub("\n", "")) or 0
  return vim.fn.strutf16len(length) + ends, whole
end

--- Bytes of the rest up to the end of its first word: blanks, then a word or a run of other characters.
---@return integer
function Offer:word()
  return #vim.fn.matchstr(self:rest() or "", [[^\_s*\%(\k\+\|\%(\k\@!\S\)\+\)\?]])
end

--- Bytes of the rest up to the end of its first line that has text on it.
---@return integer
function Offer:line()
  return #vim.fn.matchstr(self:rest() or "", [[^\_s*[^\n]*]])
end

return M
