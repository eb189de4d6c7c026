-- The orders' part of a decision; see orders.lua.

-- Pays or reopens the order that a transaction has claimed.
local function conclude(id, order, commit)
  local written = get('orders', order)
  local version, state, rest = string.match(written or '', '^(%d+)|([^|]*)(|.*)$')
  if state == 'c' .. id then
    put('orders', order, version .. '|' .. (commit and 'p' .. id or 'o') .. rest)
  end
end
