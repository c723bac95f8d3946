-- processing -> succeeded: the one moment a result is published. Safe to repeat with the same token.
-- ARGV: 1 id, 2 token, 3 the result as JSON, 4 ms the result is kept, 5 steps
-- Returns 'done' | 'lost'
local record = record_of(ARGV[1])
if record.token ~= ARGV[2] then return 'lost' end
if record.status == 'succeeded' then return 'done' end
if record.status ~= 'processing' then return 'lost' end
local at = now_ms()
settle(record, 'succeeded', at, at + tonumber(ARGV[4]), { 'result', ARGV[3], 'step', ARGV[5] })
emit('media_generation_completed', record, 'succeeded', { 'result', ARGV[3], 'completed_ms', integer(at) })
return 'done'
