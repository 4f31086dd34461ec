--- Starts and restarts the server, runs its commands, and keeps the state it reports. Must not know suggestions.
local M = {}

M.NAME = "gesso"
M.METHOD = "textDocument/inlineCompletion"

local MAX_RESTARTS, RESTART_WINDOW_S, RESTART_DELAY_MS, STOP_TIMEOUT_MS = 3, 300, 500, 3000
local has_config = vim.fn.has("nvim-0.11") == 1

---@type gesso.Options
local options
local crashes = {} ---@type number[]  times in seconds
local restarting = false
local reported_missing = false
local languages = {} ---@type table<integer, string>  file types by buffer, as the server knows them

--- The server's last status; `state` is "stopped" before the first.
---@class gesso.State
---@field state "stopped"|"loading"|"ready"|"failed"
---@field model string|nil
---@field message string|nil
---@field latencyMs number|nil
---@field enabled boolean
M.state = { state = "stopped", enabled = true }

--- Calls a client's method by name. Before Neovim 0.11 the methods do not take the client as their first argument.
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

---@return table<string, string>|nil  additional environment variables of the server
function M.environment()
  return options and options.cmd_env
end

---@return boolean
function M.is_installed()
  return vim.fn.executable(M.command()[1]) == 1
end

---@return table|nil client
function M.client(bufnr)
  return vim.lsp.get_clients({ name = M.NAME, bufnr = bufnr })[1]
end

--- Runs one of the server's commands; `done` gets its result, or nil and the error message.
---@param done fun(result: any, message: string|nil)|nil
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

local function is_supported(bufnr)
  if not vim.api.nvim_buf_is_loaded(bufnr) or vim.bo[bufnr].buftype ~= "" or vim.bo[bufnr].filetype == "" then
    return false
  end
  return not options.filetypes or vim.list_contains(options.filetypes, vim.bo[bufnr].filetype)
end

local function root(bufnr)
  return vim.fs.root(bufnr, options.root_markers) or vim.fn.getcwd()
end

local function report_missing()
  if not reported_missing then
    reported_missing = true
    local message = "Gesso: `%s` was not found. Install Gesso (`pipx install .` in its repository), or set the path of "
      .. "the server with setup({ cmd = { ... } }). See :checkhealth gesso"
    vim.notify(message:format(M.command()[1]), vim.log.levels.ERROR)
  end
end

local function on_exit(code, signal)
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
    return now - at < RESTART_WINDOW_S
  end, crashes)
  crashes[#crashes + 1] = now
  if #crashes > MAX_RESTARTS then
    local message = "Gesso: the server crashed %d times within %d minutes and is not restarted. "
      .. "See :Gesso log for the reason; run :Gesso restart to try again"
    return vim.notify(message:format(#crashes, RESTART_WINDOW_S / 60), vim.log.levels.ERROR)
  end
  vim.notify("Gesso: the server crashed and is restarting", vim.log.levels.WARN)
  vim.defer_fn(M.start, RESTART_DELAY_MS)
end

local function notify_folders(client, folders)
  M.notify(client, "workspace/didChangeWorkspaceFolders", { event = { added = folders, removed = {} } })
end

--- Adds the folder of another project to a client's workspace. Neovim does this only with its own `reuse_client`.
local function add_folder(client, dir)
  local folder = { uri = vim.uri_from_fname(dir), name = dir }
  client.workspace_folders = client.workspace_folders or {}
  for _, other in ipairs(client.workspace_folders) do
    if other.uri == folder.uri then
      return
    end
  end
  table.insert(client.workspace_folders, folder)
  if client.initialized then
    notify_folders(client, { folder })
  end
end

local function config()
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  capabilities.textDocument.inlineCompletion = { dynamicRegistration = false }
  local can_refresh = vim.tbl_get(capabilities, "workspace", "diagnostics", "refreshSupport")
  if not can_refresh then -- Neovim would pull diagnostics once and miss later ones, so the server pushes them
    capabilities.textDocument.diagnostic = nil
  end
  return {
    name = M.NAME,
    cmd = M.command(),
    cmd_env = options.cmd_env,
    capabilities = capabilities,
    settings = { gesso = vim.deepcopy(options.settings) },
    init_options = { gesso = vim.deepcopy(options.settings), workspaceTrusted = options.trust_projects, extendsSuggestions = true },
    flags = { debounce_text_changes = 0 }, -- the server uses the time and content of each single edit
    reuse_client = function(client, other) -- one server for all projects
      return client.name == other.name and not M.call(client, "is_stopped")
    end,
    handlers = {
      ["window/showMessageRequest"] = require("gesso.question").ask,
      ["gesso/suggestionExtended"] = function(_, params)
        require("gesso.actions").extended(vim.uri_to_bufnr(params.uri))
      end,
      didChangeStatus = function(_, status)
        M.state = vim.tbl_extend("force", M.state, status)
        vim.cmd.redrawstatus({ bang = true })
      end,
    },
    on_init = function(client)
      if not can_refresh then
        client.server_capabilities.diagnosticProvider = nil
      end
      local later = vim.list_slice(client.workspace_folders or {}, 2) -- added after `initialize` was sent
      if #later > 0 then
        notify_folders(client, later)
      end
    end,
    on_exit = vim.schedule_wrap(on_exit),
  }
end

local function start_for(bufnr)
  local client_config = has_config and vim.deepcopy(vim.lsp.config[M.NAME]) or config()
  client_config.settings.gesso.enabled = M.state.enabled
  client_config.init_options.gesso.enabled = M.state.enabled
  client_config.root_dir = root(bufnr)
  languages[bufnr] = vim.bo[bufnr].filetype
  local id = vim.lsp.start(client_config, { bufnr = bufnr, reuse_client = client_config.reuse_client })
  local client = id and vim.lsp.get_client_by_id(id)
  if client then
    add_folder(client, client_config.root_dir)
  end
end

--- Attaches the server to a buffer. If the file type has changed, detaches it first, which closes the document.
local function update_buffer(bufnr)
  local client = M.client(bufnr)
  if client and languages[bufnr] ~= vim.bo[bufnr].filetype then
    vim.lsp.buf_detach_client(bufnr, client.id)
  end
  if is_supported(bufnr) then
    start_for(bufnr)
  end
end

--- Starts the server for all files, open or opened later. Does not use vim.lsp.enable(), because that misses the file
--- Neovim was started with if setup() runs after it was read.
function M.start()
  if not M.is_installed() then
    if vim.v.vim_did_enter == 1 then
      report_missing()
    else
      vim.api.nvim_create_autocmd("VimEnter", { once = true, callback = report_missing })
    end
    return
  end
  vim.api.nvim_create_autocmd("FileType", {
    group = vim.api.nvim_create_augroup("gesso.start", { clear = true }),
    callback = function(event)
      update_buffer(event.buf)
    end,
  })
  vim.iter(vim.api.nvim_list_bufs()):each(update_buffer)
end

--- Restarts the server for all its files, or starts it.
function M.restart()
  crashes, reported_missing = {}, false
  local client = M.client()
  if not client then
    return M.start()
  end
  restarting = true
  M.call(client, "stop")
  vim.defer_fn(function()
    if restarting then -- still running: kill it
      M.call(client, "stop", true)
    end
  end, STOP_TIMEOUT_MS)
end

--- Switches suggestions on or off, in the running server and after a restart.
function M.set_enabled(enabled)
  M.state.enabled = enabled
  M.execute("gesso.setEnabled", { enabled })
end

---@param configured gesso.Options
function M.setup(configured)
  options, reported_missing = configured, false
  M.state.enabled = options.settings.enabled ~= false
  if has_config then
    vim.lsp.config(M.NAME, config()) -- the user can override values of it afterwards
  end
end

return M
