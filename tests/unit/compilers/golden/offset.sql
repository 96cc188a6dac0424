SELECT * FROM (
SELECT
  "__row",
  avg("__value_amount") OVER w0 AS "amount__mean__7d__offset_7d"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 1209600000000 PRECEDING AND 604800000000 PRECEDING)
)
WHERE "__row" IS NOT NULL
