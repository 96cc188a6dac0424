SELECT * FROM (
SELECT
  "__row",
  sum("__value_amount") OVER w0 AS "amount__sum__1d",
  count("__value_na""me; --") OVER w0 AS "na""me; --__count__1d"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 86400000000 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
