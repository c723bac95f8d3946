-- The last calls of a tenant's webhooks, the latest first.
-- ARGV: 1 tenant, 2 how many at the most, 3 generation or ''
local found = {}
for _, entry in ipairs(redis.call('XREVRANGE', KEY.webhook_log .. ARGV[1], '+', '-')) do
  if #found == tonumber(ARGV[2]) then break end
  if ARGV[3] == '' or named(entry[2]).id == ARGV[3] then found[#found + 1] = entry end
end
return found
