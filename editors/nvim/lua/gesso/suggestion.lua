--- One suggestion at a position in a buffer: which part is still to be inserted after more typing, and its insertion.
--- Must not know how it is drawn, nor where its item came from.
local M = {}

---@class gesso.Position  the cursor when the server was asked
---@field bufnr integer
---@field row integer  0-based
---@field column integer  bytes
---@field line string

---@class gesso.Suggestion
---@field item table  as the server sent it
---@field bufnr integer
---@field row integer
---@field column integer  bytes; the start of the item's range
---@field before string  left of `column` on that line
---@field after string  right of the cursor on that line
---@field replaced integer  bytes right of the cursor that the item replaces
---@field text string  with \n for line ends
---@field crlf boolean
local Suggestion = {}
Suggestion.__index = Suggestion

--- The cursor in the current window.
---@return gesso.Position
function M.cursor()
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

--- Nil if the item's range covers other lines than the position's, because that cannot be drawn.
---@param position gesso.Position
---@param item table
---@param encoding string
---@return gesso.Suggestion|nil
local function new(position, item, encoding)
  local text = type(item.insertText) == "table" and item.insertText.value or item.insertText
  local first, last = position.column, position.column
  if item.range then
    if item.range.start.line ~= position.row or item.range["end"].line ~= position.row then
      return nil
    end
    first = byte_index(position.line, item.range.start.character, encoding)
    last = math.max(byte_index(position.line, item.range["end"].character, encoding), position.column)
  end
  if first > position.column then
    return nil
  end
  local normalized = text:gsub("\r\n", "\n")
  return setmetatable({
    item = item,
    bufnr = position.bufnr,
    row = position.row,
    column = first,
    before = position.line:sub(1, first),
    after = position.line:sub(position.column + 1),
    replaced = last - position.column,
    text = normalized,
    crlf = normalized ~= text,
  }, Suggestion)
end

--- The suggestions of a server's result that still fit the buffer.
---@param position gesso.Position
---@param result table|nil
---@param encoding string
---@return gesso.Suggestion[]
function M.from_result(position, result, encoding)
  local suggestions = {}
  for _, item in ipairs(result and (result.items or result) or {}) do
    local suggestion = new(position, item, encoding)
    if suggestion and suggestion:rest() then
      suggestions[#suggestions + 1] = suggestion
    end
  end
  return suggestions
end

---@return string|nil id  the server's ID of the suggestion
function Suggestion:id()
  local arguments = self.item.command and self.item.command.arguments
  return arguments and arguments[1]
end

--- The number of bytes of the text that are in the buffer by now; nil if the buffer contradicts the text.
---@return integer|nil
function Suggestion:typed_length()
  if vim.api.nvim_get_current_buf() ~= self.bufnr then
    return nil
  end
  local cursor = M.cursor()
  if cursor.row < self.row or (cursor.row == self.row and cursor.column < self.column) then
    return nil
  end
  if cursor.line:sub(cursor.column + 1) ~= self.after then
    return nil
  end
  local first_line = vim.api.nvim_buf_get_lines(self.bufnr, self.row, self.row + 1, false)[1]
  if not vim.startswith(first_line, self.before) then
    return nil
  end
  local lines = vim.api.nvim_buf_get_text(self.bufnr, self.row, self.column, cursor.row, cursor.column, {})
  local typed = table.concat(lines, "\n")
  return vim.startswith(self.text, typed) and #typed or nil
end

--- The part that is still to be inserted at the cursor; nil if there is none or the buffer contradicts the text.
---@return string|nil
function Suggestion:rest()
  local length = self:typed_length()
  return length and length < #self.text and self.text:sub(length + 1) or nil
end

--- Inserts the first `bytes` of the rest, or all of it, as one undo step. Inserting all of it also replaces the text
--- that the item replaces. Returns how much of the item's text is now in the buffer, in UTF-16 code units.
---@param bytes integer|nil
---@return integer
function Suggestion:insert(bytes)
  local typed = assert(self:typed_length(), "the suggestion does not fit the buffer")
  local rest = self.text:sub(typed + 1)
  local is_all = bytes == nil or bytes >= #rest
  local text = is_all and rest or rest:sub(1, bytes)
  local cursor, lines = M.cursor(), vim.split(text, "\n", { plain = true })
  vim.cmd("let &g:undolevels = &g:undolevels") -- starts a new undo step
  local last = cursor.column + (is_all and self.replaced or 0)
  vim.api.nvim_buf_set_text(self.bufnr, cursor.row, cursor.column, cursor.row, last, lines)
  local column = #lines[#lines] + (#lines == 1 and cursor.column or 0)
  vim.api.nvim_win_set_cursor(0, { cursor.row + #lines, column })
  local inserted = self.text:sub(1, typed + #text)
  local line_ends = self.crlf and select(2, inserted:gsub("\n", "")) or 0
  return vim.fn.strutf16len(inserted) + line_ends
end

--- Bytes of the rest up to the end of its first word: whitespace, then keyword characters or a run of others.
---@return integer
function Suggestion:word_length()
  return #vim.fn.matchstr(self:rest() or "", [[^\_s*\%(\k\+\|\%(\k\@!\S\)\+\)\?]])
end

--- Bytes of the rest up to the end of its first line that has text.
---@return integer
function Suggestion:line_length()
  return #vim.fn.matchstr(self:rest() or "", [[^\_s*[^\n]*]])
end

return M
