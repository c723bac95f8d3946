-- What a tenant's generations of one model came to, and how many are under way, of the tenant's oldest so many.
-- ARGV: 1 tenant, 2 model, 3 how many are looked at
-- Returns {succeeded, failed, cancelled, retried, queued, processing}
local counted = redis.call('HMGET', KEY.tally .. ARGV[1],
  ARGV[2] .. ':succeeded', ARGV[2] .. ':failed', ARGV[2] .. ':cancelled', ARGV[2] .. ':retried')
local now = { queued = 0, processing = 0 }
for _, id in ipairs(redis.call('ZRANGE', KEY.active .. ARGV[1], 0, tonumber(ARGV[3]) - 1)) do
  local record = redis.call('HMGET', KEY.generation .. id, 'model', 'status')
  if record[1] == ARGV[2] and now[record[2]] then now[record[2]] = now[record[2]] + 1 end
end
local result = {}
for i = 1, 4 do result[i] = tonumber(counted[i] or 0) end
result[5], result[6] = now.queued, now.processing
return result
