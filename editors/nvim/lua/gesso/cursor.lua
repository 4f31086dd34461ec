--- Reports to the server where the cursor rests outside insert mode, so that the model can read the text there before the
--- user types. Must not know suggestions.
local server = require("gesso.server")

local M = {}

local METHOD, REST_MS = "gesso/cursorRested", 300
local timer = vim.uv.new_timer()

local function group(bufnr)
  return "gesso.cursor:" .. bufnr
end

local function report(bufnr, client_id)
  local client = vim.lsp.get_client_by_id(client_id)
  if client and vim.api.nvim_get_current_buf() == bufnr and vim.fn.mode():sub(1, 1) == "n" then
    server.notify(client, METHOD, vim.lsp.util.make_position_params(0, client.offset_encoding))
  end
end

--- Reports the cursor in this buffer from now on.
function M.enable(bufnr, client_id)
  local function moved()
    timer:start(
      REST_MS,
      0,
      vim.schedule_wrap(function()
        report(bufnr, client_id)
      end)
    )
  end
  vim.api.nvim_create_autocmd({ "BufEnter", "CursorMoved" }, {
    group = vim.api.nvim_create_augroup(group(bufnr), { clear = true }),
    buffer = bufnr,
    callback = moved,
  })
  if vim.api.nvim_get_current_buf() == bufnr then
    moved()
  end
end

function M.disable(bufnr)
  vim.api.nvim_create_augroup(group(bufnr), { clear = true })
end

return M
