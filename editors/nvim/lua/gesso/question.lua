--- Shows questions of the server. Must not know what they are about.
local M = {}

--- Handles window/showMessageRequest: shows the choices once the user pauses in normal mode, so that they interrupt no
--- typing and no key that is meant for the text chooses one.
function M.ask(_, params)
  local request = coroutine.running()
  local options = {
    prompt = params.message,
    format_item = function(action)
      return action.title
    end,
  }
  vim.api.nvim_create_autocmd("CursorHold", {
    once = true,
    callback = vim.schedule_wrap(function()
      vim.ui.select(params.actions or {}, options, function(action)
        coroutine.resume(request, action or vim.NIL)
      end)
    end),
  })
  return coroutine.yield()
end

return M
