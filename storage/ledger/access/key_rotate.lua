-- Puts a new API key in the place of another, which ends after a while, or earlier where it ends by itself.
-- ARGV: 1 id of the other, 2 by whom, 3 ms until that ends, 4 id of the new one, 5 the new one as JSON {expires_ms?, ...}
-- Returns 1, or 0 where the other is none, any more
if #key_ended(ARGV[1], tonumber(ARGV[3]), ARGV[2]) == 0 then return 0 end
return key_issued(ARGV[4], redis.call('HGET', KEY.api_keys, ARGV[1]), ARGV[5], ARGV[2])
