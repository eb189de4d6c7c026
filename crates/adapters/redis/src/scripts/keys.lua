
---------------------------------------------------------------------------------------------------------------------------
-- Idempotency keys: `keys` has what is remembered under each, `key_order` their AT KEY, the oldest first. As in settle-ledger's idempotency.rs.

-- Remembers an answer under a new key. Of the oldest two at most are forgotten: those beyond MOST, and beyond LEAST those that are YOUNG no longer.
local function remember_key(key, answer, at, least, most, young)
  call('HSET', base .. 'keys', key, answer)
  local many = call('RPUSH', base .. 'key_order', at .. ' ' .. key)
  for _ = 1, 2 do
    if many <= tonumber(least) then return end
    local since, oldest = string.match(call('LINDEX', base .. 'key_order', 0), '^(%d+) (.*)$')
    if many <= tonumber(most) and tonumber(at) - tonumber(since) < tonumber(young) then return end
    call('LPOP', base .. 'key_order')
    call('HDEL', base .. 'keys', oldest)
    many = many - 1
  end
end
