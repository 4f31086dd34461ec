--- The server's process: found, started, restarted, asked. Keeps the state it tells of. Knows nothing of suggestions.
local M = {}

M.NAME = "gesso"
M.METHOD = "textDocument/inlineCompletion"

local RESTARTS, WITHIN_S, PAUSE_MS = 3, 300, 500
local has_config = vim.fn.has("nvim-0.11") == 1

---@type gesso.Options
local options
local crashes = {} ---@type number[]  seconds
local restarting = false
local told_missing = false
local languages = {} ---@type table<integer, string>  file types by buffer, as the server was told

--- What the server told last; `state` is "stopped" before it told anything.
---@class gesso.State
---@field state "stopped"|"loading"|"ready"|"failed"
---@field model string|nil
---@field message string|nil
---@field latencyMs number|nil
---@field enabled boolean
M.state = { state = "stopped", enabled = true }

--- Calls a client's method by its name, whether this Neovim wants the client itself as the first argument or not.
function M.call(client, method, ...)
  if has_config then
    return client[method](client, ...)
  end
  return client[method](...)
end

---@return string[]
function M.command()
  return options and options.cmd or { "gesso-lsp" }
end

---@return table<string, string>|nil  what is added to the server's environment
function M.environment()
  return options and options.cmd_env
end

---@return boolean
function M.is_found()
  return vim.fn.executable(M.command()[1]) == 1
end

---@return table|nil client
function M.client(bufnr)
  return vim.lsp.get_clients({ name = M.NAME, bufnr = bufnr })[1]
end

--- Runs one of the server's commands; `done` gets its result, or nil and the error's text.
---@param done fun(result: any, error: string|nil)|nil
function M.execute(command, arguments, done)
  local client = M.client()
  done = done or function() end
  if not client then
    return done(nil, "The server is not running; see :checkhealth gesso.")
  end
  local params = { command = command, arguments = arguments or {} }
  M.call(client, "request", "workspace/executeCommand", params, function(err, result)
    done(result, err and err.message or nil)
  end)
end

function M.notify(client, method, params)
  M.call(client, "notify", method, params)
end

local function wanted(bufnr)
  if not vim.api.nvim_buf_is_loaded(bufnr) or vim.bo[bufnr].buftype ~= "" or vim.bo[bufnr].filetype == "" then
    return false
  end
  return not options.filetypes or vim.list_contains(options.filetypes, vim.bo[bufnr].filetype)
end

local function root(bufnr)
  return vim.fs.root(bufnr, options.root_markers) or vim.fn.getcwd()
end

local function tell_missing()
  if not told_missing then
    told_missing = true
    local message = "Gesso: `%s` was not found. Install Gesso (pip install . in its repository), or say where the server is with "
      .. "setup({ cmd = { ... } }). See :checkhealth gesso"
    vim.notify(message:format(M.command()[1]), vim.log.levels.ERROR)
  end
end

local function ended(code, signal)
  M.state = { state = "stopped", enabled = M.state.enabled }
  if vim.v.exiting ~= vim.NIL then
    return
  end
  if restarting then
    restarting = false
    return vim.defer_fn(M.start, 50)
  end
  if not options.auto_restart or (code == 0 and signal == 0) or signal == 15 then
    return
  end
  local now = vim.uv.now() / 1000
  crashes = vim.tbl_filter(function(at)
    return now - at < WITHIN_S
  end, crashes)
  crashes[#crashes + 1] = now
  if #crashes > RESTARTS then
    local message = "Gesso: the server ended %d times within %d minutes and is left alone now; "
      .. ":Gesso log says why, :Gesso restart tries again"
    return vim.notify(message:format(#crashes, WITHIN_S / 60), vim.log.levels.ERROR)
  end
  vim.notify("Gesso: the server ended by itself and is started again", vim.log.levels.WARN)
  vim.defer_fn(M.start, PAUSE_MS)
end

local function config()
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  local refresh = vim.tbl_get(capabilities, "workspace", "diagnostics", "refreshSupport")
  if not refresh then -- it would ask once and never hear of what is found later: let the server tell instead
    capabilities.textDocument.diagnostic = nil
  end
  return {
    name = M.NAME,
    cmd = M.command(),
    cmd_env = options.cmd_env,
    capabilities = capabilities,
    settings = { gesso = vim.deepcopy(options.settings) },
    init_options = { gesso = vim.deepcopy(options.settings) },
    flags = { debounce_text_changes = 0 }, -- the server goes by how fast is typed, and by each edit alone
    reuse_client = function(client, other) -- one model in memory, however many projects are open
      return client.name == other.name and not M.call(client, "is_stopped")
    end,
    handlers = {
      didChangeStatus = function(_, status)
        M.state = vim.tbl_extend("force", M.state, status)
        vim.cmd.redrawstatus({ bang = true })
      end,
    },
    on_init = function(client)
      if not refresh then
        client.server_capabilities.diagnosticProvider = nil
      end
    end,
    on_exit = vim.schedule_wrap(ended),
  }
end

local function start_in(bufnr)
  local how = has_config and vim.deepcopy(vim.lsp.config[M.NAME]) or config()
  how.settings.gesso.enabled, how.init_options.gesso.enabled = M.state.enabled, M.state.enabled
  how.root_dir = root(bufnr)
  languages[bufnr] = vim.bo[bufnr].filetype
  vim.lsp.start(how, { bufnr = bufnr, reuse_client = how.reuse_client })
end

--- Starts the server for a file, and tells it of another language by closing and opening the file there.
local function look_at(bufnr)
  local client = M.client(bufnr)
  if client and languages[bufnr] ~= vim.bo[bufnr].filetype then
    vim.lsp.buf_detach_client(bufnr, client.id)
  end
  if wanted(bufnr) then
    start_in(bufnr)
  end
end

--- Starts the server for all open files and those to come. Not by vim.lsp.enable(), which misses the file that Neovim
--- was started with where setup() comes after that was read.
function M.start()
  if not M.is_found() then
    if vim.v.vim_did_enter == 1 then
      tell_missing()
    else
      vim.api.nvim_create_autocmd("VimEnter", { once = true, callback = tell_missing })
    end
    return
  end
  vim.api.nvim_create_autocmd("FileType", {
    group = vim.api.nvim_create_augroup("gesso.start", { clear = true }),
    callback = function(event)
      look_at(event.buf)
    end,
  })
  vim.iter(vim.api.nvim_list_bufs()):each(look_at)
end

--- Stops the server and starts it again, for all files it was attached to.
function M.restart()
  crashes, told_missing = {}, false
  local client = M.client()
  if not client then
    return M.start()
  end
  restarting = true
  M.call(client, "stop")
  vim.defer_fn(function()
    if restarting then -- it did not end in time
      M.call(client, "stop", true)
    end
  end, 3000)
end

--- Switches suggestions on or off in the running server, and in those to come.
function M.set_enabled(enabled)
  M.state.enabled = enabled
  M.execute("gesso.setEnabled", { enabled })
end

---@param given gesso.Options
function M.setup(given)
  options, told_missing = given, false
  M.state.enabled = given.settings.enabled ~= false
  if has_config then
    vim.lsp.config(M.NAME, config()) -- what the user says there afterwards counts
  end
end

return M
