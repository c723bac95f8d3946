-- Calls a terminal generation's webhook once more, with all its tries.
-- ARGV: 1 id, 2 tenant
-- Returns 'missing' | 'none' where it has no webhook for its end, or is not over | 'due'
local record = record_of(ARGV[1])
if record.tenant ~= ARGV[2] then return 'missing' end
-- The first of a request's generations speaks for all.
local speaker = record.siblings and string.match(record.siblings, '%S+') or record.id
local key = KEY.generation .. speaker
local moments, completed = unpack(redis.call('HMGET', key, 'webhook_moments', 'completed_ms'))
if not moments or not completed or not string.find(moments, 'completed', 1, true) then return 'none' end
for sibling in string.gmatch(record.siblings or '', '%S+') do
  if is_unfinished(sibling) then return 'none' end
end
redis.call('HSET', key, 'tries_completed', 0)
webhook_at(record.tenant, speaker .. '/completed', now_ms())
return 'due'
