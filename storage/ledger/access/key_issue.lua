-- Remembers a new API key and notes who made it.
-- ARGV: 1 id, 2 tenant, 3 the key as JSON {expires_ms?, ...}, 4 by whom
return key_issued(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
