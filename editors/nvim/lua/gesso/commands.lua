--- The command :Gesso and its subcommands.
local actions = require("gesso.actions")
local server = require("gesso.server")
local windows = require("gesso.windows")

local M = {}

local MAX_RECORDS = 40

local function notify(message, level)
  vim.notify("Gesso: " .. message, level or vim.log.levels.INFO)
end

--- Calls `done` with the result of a server's command, or shows its error.
local function execute(command, done, arguments)
  server.execute(command, arguments or {}, function(result, message)
    if message then
      notify(message, vim.log.levels.ERROR)
    else
      done(result)
    end
  end)
end

local function text(value)
  return (value == nil or value == vim.NIL) and "" or tostring(value)
end

local function format_record(record)
  local stages = {}
  for stage, milliseconds in vim.spairs(type(record.timings_ms) == "table" and record.timings_ms or {}) do
    stages[#stages + 1] = ("%s %.0f"):format(stage, milliseconds)
  end
  local reason = text(record.sentence)
  if record.outcome == "shown" and record.origin == "next edit" then
    reason = "next edit: " .. reason
  elseif record.outcome == "shown" then
    reason = ("%d characters, %s"):format(record.characters, text(record.origin))
  elseif text(record.rule) ~= "" then
    reason = ("%s (%s)"):format(reason, record.rule)
  end
  local time = os.date("%H:%M:%S", record.at)
  local head = ("%s  line %-5d %-10s %6.0f ms  "):format(time, record.line, record.outcome, record.total_ms)
  return head .. reason .. (#stages > 0 and "  [" .. table.concat(stages, ", ") .. " ms]" or "")
end

local subcommands = {}

function subcommands.status()
  if not server.client() then
    return notify("the server is not running; see :checkhealth gesso", vim.log.levels.WARN)
  end
  execute("gesso.status", function(status)
    local parts = { ("model %s is %s"):format(text(status.model), text(status.state)) }
    if text(status.message) ~= "" then
      parts[#parts + 1] = status.message
    end
    if text(status.latencyMs) ~= "" then
      parts[#parts + 1] = ("last suggestion in %.0f ms"):format(status.latencyMs)
    end
    parts[#parts + 1] = server.state.enabled and "switched on" or "switched off"
    parts[#parts + 1] = actions.uses_native() and "drawn by Neovim" or "drawn by the plugin"
    notify(table.concat(parts, ", "))
  end)
end

function subcommands.toggle()
  local enabled = not server.state.enabled
  server.set_enabled(enabled)
  if not enabled then
    actions.hide()
  end
  notify(enabled and "on" or "off")
end

function subcommands.trigger()
  if actions.trigger() then
    return
  end
  if not server.client(vim.api.nvim_get_current_buf()) then
    return notify("no server is attached to this buffer; see :checkhealth gesso", vim.log.levels.WARN)
  end
  vim.api.nvim_create_autocmd("InsertEnter", { once = true, callback = vim.schedule_wrap(actions.trigger) })
  vim.cmd.startinsert({ bang = vim.fn.col(".") >= vim.fn.col("$") - 1 })
end

--- Rewrites lines as an instruction says; asks for it if there is none.
---@param instruction string
---@param lines integer[]  the first and the last line, from 1
function subcommands.edit(instruction, lines)
  if instruction == "" then
    vim.ui.input({ prompt = "Gesso, change: " }, function(answer)
      if answer and vim.trim(answer) ~= "" then
        subcommands.edit(answer, lines)
      end
    end)
    return
  end
  local range = { start = { line = lines[1] - 1, character = 0 }, ["end"] = { line = lines[2], character = 0 } }
  notify("rewriting …")
  execute("gesso.edit", function(outcome)
    if outcome.applied then
      notify("rewritten; `u` restores the old text")
    else
      notify(text(outcome.reason), vim.log.levels.WARN)
    end
  end, { vim.uri_from_bufnr(0), range, instruction })
end

--- Asks for the next edit by hand.
function subcommands.next()
  local asked = require("gesso.next_edit").ask(function(found)
    if not found then
      execute("gesso.whyNothing", function(records)
        notify(records[1] and text(records[1].sentence) or "nothing is due")
      end)
    end
  end)
  if not asked then
    notify("no server is attached to this buffer; see :checkhealth gesso", vim.log.levels.WARN)
  end
end

--- Whether a record explains anything: after most edits no next edit is due.
local function is_informative(record)
  local usual = record.outcome ~= "shown" and record.rule ~= "asleep" and record.rule ~= "ignored"
  return record.origin ~= "next edit" or not usual
end

function subcommands.why()
  execute("gesso.whyNothing", function(all)
    local records = vim.tbl_filter(is_informative, all)
    local lines = vim.tbl_map(format_record, vim.list_slice(records, 1, MAX_RECORDS))
    if #lines == 0 then
      lines = { "There have been no requests yet." }
    end
    windows.float("Gesso: the last requests, newest first", lines)
  end)
end

function subcommands.report()
  execute("gesso.report", function(report)
    windows.scratch("gesso://report", vim.split(report, "\n", { plain = true }), "markdown")
  end)
end

function subcommands.download()
  execute("gesso.downloadModel", function() end)
end

function subcommands.restart()
  server.restart()
  notify("restarting the server")
end

function subcommands.log()
  local path = vim.lsp.log.get_filename and vim.lsp.log.get_filename() or vim.lsp.get_log_path()
  vim.cmd.split(vim.fn.fnameescape(path))
  vim.cmd.normal({ "G", bang = true })
end

--- Runs :Gesso with these arguments.
---@param arguments string[]
---@param lines integer[]|nil  the first and the last line of the command's range; default: the cursor's line
function M.run(arguments, lines)
  local name = arguments[1] or "status"
  if name == "edit" then
    local line = vim.fn.line(".")
    return subcommands.edit(table.concat(arguments, " ", 2), lines or { line, line })
  end
  if #arguments > 1 or not subcommands[name] then
    local given, known = table.concat(arguments, " "), table.concat(M.complete(""), ", ")
    return notify(("unknown command `:Gesso %s`; use one of %s"):format(given, known), vim.log.levels.ERROR)
  end
  subcommands[name]()
end

--- The subcommands that start with `lead`.
---@param lead string
---@param line string|nil  the command line; only its first argument is completed
---@return string[]
function M.complete(lead, line)
  if line and #vim.split(vim.trim(line), "%s+") > (lead == "" and 1 or 2) then
    return {}
  end
  local names = vim.tbl_filter(function(name)
    return vim.startswith(name, lead)
  end, vim.tbl_keys(subcommands))
  table.sort(names)
  return names
end

return M
