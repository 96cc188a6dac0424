SELECT * FROM (
SELECT
  "__row",
  count("__value_amount") OVER w0 AS "amount__count__1d__offset_1d",
  count("__value_amount") OVER w1 AS "amount__count__7d__offset_1d",
  sum("__value_amount") OVER w0 AS "amount__sum__1d__offset_1d",
  sum("__value_amount") OVER w1 AS "amount__sum__7d__offset_1d"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 172800000000 PRECEDING AND 86400000001 PRECEDING),
  w1 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 691200000000 PRECEDING AND 86400000001 PRECEDING)
)
WHERE "__row" IS NOT NULL
