SELECT * FROM (
SELECT
  "__row",
  count("__value_amount") OVER w0 AS "amount__count__7d",
  count("__value_amount") OVER w1 AS "amount__count__30d",
  sum("__value_amount") OVER w0 AS "amount__sum__7d",
  sum("__value_amount") OVER w1 AS "amount__sum__30d",
  avg("__value_amount") OVER w0 AS "amount__mean__7d",
  avg("__value_amount") OVER w1 AS "amount__mean__30d",
  min("__value_amount") OVER w0 AS "amount__min__7d",
  min("__value_amount") OVER w1 AS "amount__min__30d",
  max("__value_amount") OVER w0 AS "amount__max__7d",
  max("__value_amount") OVER w1 AS "amount__max__30d",
  stddev_samp("__value_amount") OVER w0 AS "amount__std__7d",
  stddev_samp("__value_amount") OVER w1 AS "amount__std__30d",
  median("__value_amount") OVER w0 AS "amount__median__7d",
  median("__value_amount") OVER w1 AS "amount__median__30d"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 604800000000 PRECEDING AND 0 PRECEDING),
  w1 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 2592000000000 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
