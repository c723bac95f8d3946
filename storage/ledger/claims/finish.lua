-- processing -> succeeded: the one moment a result is published. Safe to repeat with the same token.
-- ARGV: 1 id, 2 token, 3 the result as JSON, 4 ms the result is kept at the most, 5 steps, 6 target, 7 the sample as JSON, 8 its pixels,
--       9 ms on the GPU, 10 its cost in millionths of a dollar
-- Returns 'done' | 'lost' | 'gone' where there is no record
local record = record_of(ARGV[1])
if not record.id then return 'gone' end
if record.token ~= ARGV[2] then return 'lost' end
if record.status == 'succeeded' then return 'done' end
if record.status ~= 'processing' then return 'lost' end
local at = now_ms()
settle(record, 'succeeded', at, at + tonumber(ARGV[4]), { 'result', ARGV[3], 'step', ARGV[5] })
note_sample(ARGV[6], ARGV[7])
local usage = KEY.usage .. record.tenant .. ':' .. (record.month or '')
for what, amount in pairs({ count = 1, pixels = ARGV[8], gpu_ms = ARGV[9], cost = ARGV[10] }) do
  redis.call('HINCRBY', usage, record.model .. ':' .. what, amount)
end
redis.call('HINCRBY', usage, 'spent', ARGV[10])
redis.call('EXPIRE', usage, LIFE.usage)
local told = { 'result', ARGV[3], 'completed_ms', integer(at) }
if record.keep_ms then
  told[#told + 1] = 'keep_ms'
  told[#told + 1] = record.keep_ms
end
emit('media_generation_completed', record, 'succeeded', told)
return 'done'
