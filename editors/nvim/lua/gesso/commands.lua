--- The command :Gesso. Each of its words is a function here.
local server = require("gesso.server")
local suggestions = require("gesso.actions")
local windows = require("gesso.windows")

local M = {}

local REASONS = 40

local function tell(message, level)
  vim.notify("Gesso: " .. message, level or vim.log.levels.INFO)
end

--- Calls `done` with a command's result; its error is told.
local function ask(command, done)
  server.execute(command, {}, function(result, problem)
    if problem then
      tell(problem, vim.log.levels.ERROR)
    else
      done(result)
    end
  end)
end

local function text(value)
  return (value == nil or value == vim.NIL) and "" or tostring(value)
end

local function line_of(record)
  local stages = {}
  for stage, milliseconds in vim.spairs(type(record.timings_ms) == "table" and record.timings_ms or {}) do
    stages[#stages + 1] = ("%s %.0f"):format(stage, milliseconds)
  end
  local reason = text(record.sentence)
  if record.outcome == "shown" then
    reason = ("%d characters, %s"):format(record.characters, text(record.rung))
  elseif text(record.rule) ~= "" then
    reason = ("%s (%s)"):format(reason, record.rule)
  end
  local took = ("%6.0f ms"):format(record.total_ms)
  local head = ("%s  line %-5d %-10s %s  "):format(os.date("%H:%M:%S", record.at), record.line, record.outcome, took)
  return head .. reason .. (#stages > 0 and "  [" .. table.concat(stages, ", ") .. " ms]" or "")
end

local words = {}

function words.status()
  local state, client = server.state, server.client()
  if not client then
    return tell("the server is not running; see :checkhealth gesso", vim.log.levels.WARN)
  end
  ask("gesso.status", function(status)
    local parts = { ("model %s is %s"):format(text(status.model), text(status.state)) }
    if text(status.message) ~= "" then
      parts[#parts + 1] = status.message
    end
    if text(status.latencyMs) ~= "" then
      parts[#parts + 1] = ("last answer in %.0f ms"):format(status.latencyMs)
    end
    parts[#parts + 1] = state.enabled and "switched on" or "switched off"
    parts[#parts + 1] = suggestions.uses_native() and "drawn by Neovim" or "drawn by the plugin"
    tell(table.concat(parts, ", "))
  end)
end

function words.toggle()
  local enabled = not server.state.enabled
  server.set_enabled(enabled)
  if not enabled then
    suggestions.hide()
  end
  tell(enabled and "on" or "off")
end

function words.trigger()
  if suggestions.trigger() then
    return
  end
  if not server.client(vim.api.nvim_get_current_buf()) then
    return tell("there is no server for this buffer; see :checkhealth gesso", vim.log.levels.WARN)
  end
  vim.api.nvim_create_autocmd("InsertEnter", { once = true, callback = vim.schedule_wrap(suggestions.trigger) })
  vim.cmd.startinsert({ bang = vim.fn.col(".") >= vim.fn.col("$") - 1 })
end

function words.why()
  ask("gesso.whyNothing", function(records)
    local lines = vim.tbl_map(line_of, vim.list_slice(records, 1, REASONS))
    if #lines == 0 then
      lines = { "Nothing was asked for yet." }
    end
    windows.float("Gesso: the last requests, newest first", lines)
  end)
end

function words.report()
  ask("gesso.report", function(report)
    windows.scratch("gesso://report", vim.split(report, "\n", { plain = true }), "markdown")
  end)
end

function words.restart()
  server.restart()
  tell("the server is starting again")
end

function words.log()
  local path = vim.lsp.log.get_filename and vim.lsp.log.get_filename() or vim.lsp.get_log_path()
  vim.cmd.split(vim.fn.fnameescape(path))
  vim.cmd.normal({ "G", bang = true })
end

--- Runs :Gesso with these words.
---@param arguments string[]
function M.run(arguments)
  local word = arguments[1] or "status"
  if #arguments > 1 or not words[word] then
    local given, known = table.concat(arguments, " "), table.concat(M.complete(""), ", ")
    return tell(("there is no `:Gesso %s`; there are %s"):format(given, known), vim.log.levels.ERROR)
  end
  words[word]()
end

--- The words that begin with `lead`.
---@param lead string
---@param line string|nil  the command line; nothing follows the first word
---@return string[]
function M.complete(lead, line)
  if line and #vim.split(vim.trim(line), "%s+") > (lead == "" and 1 or 2) then
    return {}
  end
  local found = vim.tbl_filter(function(word)
    return vim.startswith(word, lead)
  end, vim.tbl_keys(words))
  table.sort(found)
  return found
end

return M
