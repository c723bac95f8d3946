-- Asks for the prompts of a claimed generation to be encoded. Asked again it keeps its place, or gets one anew.
-- ARGV: 1 id, 2 token, 3 region
-- Returns 'asked' | 'lost'
local record = record_of(ARGV[1])
if record.status ~= 'processing' or record.token ~= ARGV[2] then return 'lost' end
local waiting = KEY.encodings .. ARGV[3] .. ':' .. record.model
redis.call('ZADD', waiting, 'NX', integer(now_ms()), record.id .. '/' .. record.token)
redis.call('EXPIRE', waiting, LIFE.encodings)
return 'asked'
