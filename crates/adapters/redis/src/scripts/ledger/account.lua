
---------------------------------------------------------------------------------------------------------------------------
-- account ID

local account = find(ARGV[2])
return account and answer(account) or { 'none' }
