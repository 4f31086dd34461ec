'use strict';

const DEFAULTS = { limit: 20, order: 'asc', fields: ['name', 'id'] };

function compare(first, second, order) {
  const sign = order === 'asc' ? 1 : -1;
  if (first.name === second.name) {
    return sign * (first.id - second.id);
  }
  return first.name < second.name ? -sign : sign;
}

class Store {
  constructor(rows, options = {}) {
    this.rows = rows.map((row, index) => ({ ...row, id: row.id ?? index }));
    this.options = { ...DEFAULTS, ...options };
  }

  find(pattern) {
    const { limit, order } = this.options;
    const wanted = new RegExp(`^${pattern}$`, 'i');
    const found = this.rows.filter(({ name }) => wanted.test(name));
    return found.sort((first, second) => compare(first, second, order)).slice(0, limit);
  }

  async load(client, url) {
    try {
      const response = await client.get(url, { headers: { accept: 'application/json' } });
      this.rows = JSON.parse(await response.text());
    } catch (error) {
      console.error(`Cannot load ${url}: ${error.message}`);
      throw new Error("the rows can't be loaded", { cause: error });
    }
  }
}

module.exports = { Store, compare };
